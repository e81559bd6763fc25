"""The web app: one page for people and one interface for programs, over any engine."""

from flask import Flask

from darkroom.config import ServeConfig
from darkroom.engines.base import Engine
from darkroom.web import api, headers, page, problems
from darkroom.web.service import Limits, Service
from darkroom.web.uploads import UploadRequest


def create_app(engine: Engine, settings: ServeConfig) -> Flask:
    """A WSGI application that answers with `engine`, which stays the caller's to close."""
    app = Flask(__name__)
    app.request_class = UploadRequest
    app.json.sort_keys = False  # type: ignore[attr-defined]  # Flask types the attribute as its base class
    service = Service(engine, Limits.of(settings))
    service.limits.apply(app)
    app.extensions["darkroom"] = service
    problems.register(app)
    headers.register(app)
    app.register_blueprint(page.blueprint)
    app.register_blueprint(api.blueprint)
    return app
