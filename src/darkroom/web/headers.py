"""Headers that keep browsers from doing with this site what it never asks of them."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from flask import Flask

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

POLICY = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' blob:",
    "connect-src 'self'",
    "form-action 'self'",
    "base-uri 'none'",
)

SECURITY_HEADERS = {
    "Content-Security-Policy": "; ".join((*POLICY, "frame-ancestors 'none'")),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def register(app: Flask, frame_ancestors: frozenset[str]) -> None:
    """Add the headers to every response of `app`, errors included; `frame_ancestors` may show its pages in frames."""
    headers = dict(SECURITY_HEADERS)
    if frame_ancestors:
        allowed = f"frame-ancestors {' '.join(sorted(frame_ancestors))}"
        headers["Content-Security-Policy"] = "; ".join((*POLICY, allowed))
        del headers["X-Frame-Options"]  # it cannot name whom it allows

    app.wsgi_app = _Adding(app.wsgi_app, headers | {"Cache-Control": "no-store"})  # type: ignore[method-assign]


class _Adding:
    """A WSGI application whose answers have these headers, too, but for those that they have already."""

    def __init__(self, app: "WSGIApplication", headers: Mapping[str, str]) -> None:
        self._app = app
        self._added = [(name.lower(), (name, value)) for name, value in headers.items()]

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer one request."""

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Callable[[bytes], object]:
            given = {name.lower() for name, _ in headers}
            return start_response(
                status, headers + [header for name, header in self._added if name not in given], *error
            )

        return self._app(environ, start)
