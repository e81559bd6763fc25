"""Who may ask, where, and how often: names, API keys and the pace of each client, before a body is read."""

import re
from collections.abc import Collection
from dataclasses import dataclass

from flask import Flask, current_app, g, request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import HTTPException, NotFound, TooManyRequests, Unauthorized

from darkroom.config import ServeConfig, origins
from darkroom.web.keys import Keys
from darkroom.web.pace import Pace, client_of

HEADER = "X-Api-Key"

METRICS = "api.metrics"

PROBES = frozenset({"api.health", "api.ready"})
"""Asked by whoever watches the server, often by its address."""

FREE_OF_PACE = PROBES | {"static"}
"""What costs next to nothing, or is asked by whoever watches the server."""


class MisdirectedRequest(HTTPException):
    """421, which werkzeug does not know."""

    code = 421
    description = "This server is not asked under that name: whoever runs it lists its names in --hosts."


@dataclass(frozen=True)
class Gate:
    """The keys that are accepted (None: no key is asked for), the pace, and the end points that are open to all.

    Where `metrics_apart`, they are answered at a port of their own only, and nothing else is there.
    """

    keys: Keys | None
    pace: Pace | None
    open_endpoints: Collection[str]
    metrics_apart: bool
    hosts: frozenset[str] = frozenset()
    """Names under which the server may be asked; any where empty. Else a page of a stranger whose name leads to this
    address (DNS rebinding) would be of the same origin as this server, and could read what it says."""

    @classmethod
    def of(cls, settings: ServeConfig, open_endpoints: Collection[str]) -> "Gate":
        """The gate of `settings`; raises `UsageError` for keys that cannot be read."""
        keys = Keys.read(settings.api_keys) if settings.api_keys is not None else None
        pace = Pace(settings.max_requests_per_minute) if settings.max_requests_per_minute else None
        apart, hosts = settings.metrics_port is not None, origins(settings.hosts)
        return cls(keys, pace, frozenset(open_endpoints), apart, hosts)

    def require_key(self, key: str | None) -> None:
        """Raise werkzeug's 401 unless `key` is one of those accepted, or none is asked for."""
        self._identify(key)
        self._refuse_strangers()

    def check(self) -> None:
        """Hold the current request to all this; raises werkzeug's 401, 404, 421 or 429."""
        at_own_port = bool(request.environ.get("darkroom.metrics_port"))  # from our server
        if self.metrics_apart and (request.endpoint == METRICS) != at_own_port:
            raise NotFound(NotFound.description)
        if self.hosts and not at_own_port and request.endpoint not in PROBES and _host() not in self.hosts:
            raise MisdirectedRequest
        if request.method == "OPTIONS":  # a browser asks so whether it may ask, without a key
            return
        self._identify(key_of_request())
        if self.pace is not None and request.endpoint not in FREE_OF_PACE:
            self._keep_pace(self.pace)
        if request.endpoint is not None and request.endpoint not in self.open_endpoints:
            self._refuse_strangers()

    def _identify(self, key: str | None) -> None:
        g.key_name = self.keys.owner(key) if self.keys is not None and key else None

    def _refuse_strangers(self) -> None:
        if self.keys is not None and g.key_name is None:
            raise Unauthorized(
                f"This server asks for an API key: send it as Authorization: Bearer KEY, or in the header {HEADER}.",
                www_authenticate=WWWAuthenticate("bearer", {"realm": "darkroom"}),
            )

    def _keep_pace(self, pace: Pace) -> None:
        seconds = pace.seconds_to_wait(f"key {g.key_name}" if g.key_name else client_of(request.remote_addr))
        if seconds:
            raise TooManyRequests(f"Too many requests: come back in {seconds} s.", retry_after=seconds)


def register(app: Flask, gate: Gate) -> None:
    """Let every request of `app` pass the gate."""
    app.extensions["darkroom.gate"] = gate
    app.before_request(gate.check)


def gate() -> Gate:
    """The gate of the application that handles the current request."""
    found: Gate = current_app.extensions["darkroom.gate"]
    return found


def _host() -> str:
    """The name under which the server was asked, without a port."""
    return re.sub(r":\d*$", "", request.headers.get("Host", "")).lower().removesuffix(".")


def key_of_request() -> str | None:
    """The key in the headers of the current request."""
    given = request.authorization
    if given is not None and given.type == "bearer":
        return given.token
    return request.headers.get(HEADER)
