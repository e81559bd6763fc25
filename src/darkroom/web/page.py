"""The page for people; without JavaScript it is a plain form whose answers the server renders."""

from typing import Any

from flask import Blueprint, render_template, request
from werkzeug.exceptions import HTTPException

from darkroom.engines.prediction import Failure, Prediction
from darkroom.errors import EngineError
from darkroom.web.problems import detail_of, engine_trouble
from darkroom.web.service import accuracy, megabytes, service
from darkroom.web.uploads import read_uploads

BARS = 3
"""Classes shown at once; the others open on demand."""

blueprint = Blueprint("page", __name__)


@blueprint.get("/")
def show() -> str:
    """The empty page."""
    return _render()


@blueprint.post("/")
def answer() -> tuple[str, int]:
    """The page with the answers to a submitted form, or with what was wrong about it."""
    shared = service()
    try:
        return _render(answers=shared.answer(read_uploads(request, shared.limits))), 200
    except HTTPException as error:
        return _render(trouble=detail_of(error)), error.code or 500
    except EngineError as error:
        return _render(trouble=engine_trouble(error)), 503


@blueprint.app_template_filter()
def percent(probability: float) -> str:
    """A probability as people read it; never a rounded certainty or impossibility."""
    if probability >= 0.9995:
        return ">\u200999.9\u202f%"
    return f"{probability:.1%}".replace("%", "\u202f%") if probability >= 0.0005 else "<\u20090.1\u202f%"


@blueprint.app_template_filter()
def width(probability: float) -> str:
    """A bar's length."""
    return f"{probability:.2%}"


@blueprint.app_template_filter()
def fact(value: object) -> str:
    """A fact about the model, large numbers with separators."""
    return f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _render(*, answers: list[Prediction | Failure] | None = None, trouble: str | None = None) -> str:
    shared = service()
    info = shared.engine.bundle
    context: dict[str, Any] = {
        "info": info,
        "accuracy": accuracy(info.metrics),
        "limits": shared.limits,
        "largest_file": megabytes(shared.limits.file_bytes),
        "answers": answers or [],
        "trouble": trouble,
        "bars": BARS,
    }
    return render_template("page.html", **context)
