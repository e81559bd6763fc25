"""Headers that keep browsers from doing with this site what it never asks of them."""

from flask import Flask, Response, request

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

    usual = list(headers.items())

    def add(response: Response) -> Response:
        given = {name.lower() for name, _ in response.headers}
        response.headers.extend([header for header in usual if header[0].lower() not in given])
        if request.endpoint != "static":
            response.headers.setdefault("Cache-Control", "no-store")
        return response

    app.after_request(add)
