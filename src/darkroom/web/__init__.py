"""The web app: a page for people and an interface for programs, over any engine."""

from flask import Flask

from darkroom.config import ServeConfig, origins
from darkroom.engines.base import Engine
from darkroom.web import api, cors, docs, gate, headers, page, problems, readiness, tensorflow_dialect, tracing
from darkroom.web.metrics import Metrics
from darkroom.web.papers import Papers
from darkroom.web.service import Limits, Service
from darkroom.web.uploads import UploadRequest

OPEN = frozenset({"static"}) | page.OPEN | api.OPEN | tensorflow_dialect.OPEN | docs.OPEN
"""End points that answer without an API key where the server asks for keys."""


def create_app(engine: Engine, settings: ServeConfig, papers: Papers | None = None) -> Flask:
    """A WSGI application that answers with `engine`, which stays the caller's to close.

    Raises `UsageError` for a file of API keys that cannot be read.
    """
    app = Flask(__name__)
    app.request_class = UploadRequest
    app.json.sort_keys = False  # type: ignore[attr-defined]  # Flask types the attribute as its base class
    limits, seconds = Limits.of(settings), settings.max_decode_seconds
    service = Service(engine, limits, seconds, papers or Papers(), Metrics(engine.bundle))
    service.limits.apply(app)
    for name, (text, value) in engine.watched().items():
        service.metrics.watch(name, text, value)
    app.extensions["darkroom"] = service
    readiness.register(app, engine)
    tracing.register(app)  # first, so that it sees what all others did
    gate.register(app, gate.Gate.of(settings, OPEN))
    problems.register(app)
    headers.register(app, origins(settings.frame_ancestors))
    cors.register(app, origins(settings.allow_origins))
    for part in (page, api, tensorflow_dialect, docs):
        app.register_blueprint(part.blueprint)
    return app
