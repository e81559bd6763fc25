"""The pages for people; without JavaScript the first is a plain form whose answers the server renders."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from flask import Blueprint, Response, json, render_template, request
from markdown_it import MarkdownIt
from markupsafe import Markup
from werkzeug.exceptions import BadRequest, HTTPException, NotFound, Unauthorized

from darkroom.bundle import BundleInfo
from darkroom.engines.prediction import Answer, Failure
from darkroom.errors import EngineError
from darkroom.web.api import answer_to_json
from darkroom.web.endpoints import JSON
from darkroom.web.gate import gate
from darkroom.web.problems import COME_BACK_SECONDS, detail_of, engine_trouble
from darkroom.web.results import to_csv
from darkroom.web.service import Upload, accuracy, megabytes, service
from darkroom.web.uploads import read_form

BARS = 3
"""Classes shown at once; the others open on demand."""

KEY_WANTED = "This server asks for an API key: type it into the field for it, and try again."
KEY_UNKNOWN = "This server does not know that API key: type another one, and try again."
"""As in darkroom.js."""

OPEN = frozenset({"page.show", "page.answer", "page.about", "page.sample"})
"""All pages; `answer` reads the key, where one is asked for, from the form."""

blueprint = Blueprint("page", __name__)

markdown = MarkdownIt("commonmark", {"html": False}).enable("table")


@blueprint.get("/")
def show() -> str:
    """The empty page."""
    return _render()


@blueprint.post("/")
def answer() -> tuple[str | Response, int, dict[str, str]]:
    """The page with the answers to a submitted form, or with what was wrong about it; or the answers as a file."""
    shared = service()
    try:
        gate().require_key(request.form.get("key"))
        answers = shared.answer(_uploads())
        return _file(answers, request.form.get("as", "")) or _render(answers=answers), 200, {}
    except Unauthorized:
        return _render(trouble=KEY_UNKNOWN if request.form.get("key") else KEY_WANTED), 401, {}
    except HTTPException as error:
        return _render(trouble=detail_of(error)), error.code or 500, {}
    except EngineError as error:
        return _render(trouble=engine_trouble(error)), 503, {"Retry-After": str(COME_BACK_SECONDS)}


@blueprint.get("/model")
def about() -> str:
    """The model's card, or what the bundle says of itself where it has none."""
    card = service().papers.card
    shown = None if card is None else Markup(rendered(card))  # noqa: S704  (HTML is off)
    return _render("about.html", alarms=alarms_in_words(service().engine.bundle), card=shown)


@blueprint.get("/samples/<int:place>")
def sample(place: int) -> Response:
    """A picture to try; the first has the place 1."""
    samples = service().papers.samples
    if not 1 <= place <= len(samples):
        raise NotFound(f"There is no sample {place}: there are {len(samples)}.")
    found = samples[place - 1]
    return Response(found.content, content_type=found.media_type)


def rendered(card: str) -> str:
    """A card as HTML: without its metadata, and with what looks like HTML in it as text."""
    if card.startswith("---\n"):
        card = card.partition("\n---\n")[2]
    html: str = markdown.render(card)
    return html


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


def unlike_in_words(info: BundleInfo) -> str:
    """What is said of a picture that is unlike those of training, with the rate at which this is a false alarm."""
    alarms = alarms_in_words(info)
    rate = f" Of ordinary pictures this is said of {alarms} too." if alarms else ""
    return f"This picture looks unlike those the model was trained on: do not rely on the answer.{rate}"


def alarms_in_words(info: BundleInfo) -> str:
    """The part of validation's pictures that are called unlike those of training; empty where it is not known."""
    alarms = info.novelty.get("false_alarms")
    return "" if alarms is None else f"{100 * alarms:.3g} %"


def summary_in_words(answers: Sequence[Answer]) -> str:
    """How many pictures got which kind of answer, in the words of darkroom.js."""
    kinds = Counter(
        "without an answer" if isinstance(answer, Failure) else "answered" if answer.sure else "not sure"
        for answer in answers
    )
    order = ("answered", "not sure", "without an answer")
    return ", ".join(f"{kinds[kind]} {kind}" for kind in order if kinds[kind])


def _uploads() -> list[Upload]:
    """The pictures of the form, or the sample that its button names."""
    wanted = request.form.get("sample")
    if wanted is None:
        return read_form(request, service().limits)
    samples = service().papers.samples
    if wanted not in map(str, range(1, len(samples) + 1)):
        raise BadRequest(f"There is no such sample: there are {len(samples)}.")
    return [(f"sample {wanted}", samples[int(wanted) - 1].content)]


def _file(answers: Sequence[Answer], kind: str) -> Response | None:
    """The answers as a file to keep; None where the page is wanted."""
    if kind == "csv":
        text, media_type = to_csv(answers, service().engine.bundle.classes), "text/csv; charset=utf-8"
    elif kind == "json":
        text, media_type = json.dumps([answer_to_json(answer) for answer in answers]), JSON
    else:
        return None
    disposition = f'attachment; filename="answers.{kind}"'
    return Response(text, content_type=media_type, headers={"Content-Disposition": disposition})


def _render(
    template: str = "page.html",
    *,
    answers: Sequence[Answer] = (),
    trouble: str | None = None,
    **more: Any,
) -> str:
    shared = service()
    info = shared.engine.bundle
    context: dict[str, Any] = {
        "info": info,
        "accuracy": accuracy(info.metrics),
        "limits": shared.limits,
        "largest_file": megabytes(min(shared.limits.file_bytes, shared.limits.request_bytes)),
        "samples": len(shared.papers.samples),
        "unlike": unlike_in_words(info),
        "keys": gate().keys is not None,
        "answers": answers,
        "summary": summary_in_words(answers),
        "trouble": trouble,
        "bars": BARS,
    }
    return render_template(template, **context | more)
