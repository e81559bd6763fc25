"""The production server: waitress, one process, several threads that share an engine."""

import errno
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from types import FrameType
from typing import Any

from flask import Flask
from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.server import create_server
from waitress.task import ErrorTask

from darkroom.config import ServeConfig
from darkroom.errors import UsageError
from darkroom.progress import say
from darkroom.web.headers import SECURITY_HEADERS
from darkroom.web.problems import MEDIA_TYPE, respond
from darkroom.web.service import Limits

IDLE_SECONDS = 60
"""After so long without a byte a connection is closed."""

MEMORY_A_REQUEST = 8_000_000
"""Bytes of an arriving request that stay in memory; a larger one goes to a nameless temporary file, so that a hundred
slow senders cannot fill the memory."""


class ProblemTask(ErrorTask):  # type: ignore[misc]  # waitress has no types
    """Answers what never reaches the application (a bad request line, a body too large) in the application's shape."""

    def execute(self) -> None:
        """Write the problem and close the connection."""
        error = self.request.error
        response = respond(error.code, str(error.body))
        body = response.get_data()
        self.status = f"{error.code} {error.reason}"
        self.response_headers.extend([("Content-Type", MEDIA_TYPE), *SECURITY_HEADERS.items()])
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class Channel(HTTPChannel):  # type: ignore[misc]  # waitress has no types
    """A connection whose errors have the application's shape."""

    error_task_class = ProblemTask


class Server:
    """A bound server: connections are accepted from its making on and answered while `run` runs."""

    def __init__(self, app: Flask, settings: ServeConfig) -> None:
        listener = _listen(settings)
        self.host = settings.host
        self.port: int = listener.getsockname()[1]
        self._server = create_server(
            app,
            sockets=[listener],
            threads=settings.threads,
            max_request_body_size=Limits.of(settings).request_bytes,
            inbuf_overflow=MEMORY_A_REQUEST,
            channel_timeout=IDLE_SECONDS,
            cleanup_interval=10,
            ident="darkroom",
        )
        self._server.channel_class = Channel
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a short queue is no news

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the page."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::", "") else self.host  # noqa: S104  (compared, not bound)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"

    def run(self) -> None:
        """Answer requests until `stop`, SystemExit or KeyboardInterrupt."""
        try:
            self._server.run()
        finally:
            self.close()

    def stop(self) -> None:
        """Make `run` return; may be called from another thread."""
        with suppress(OSError):  # where `run` is awake already, it may end before it is woken
            self._server.trigger.pull_trigger(lambda: wasyncore.close_all(self._server._map))

    def close(self) -> None:
        """Stop the threads and close all connections; only when `run` does not run."""
        self._server.task_dispatcher.shutdown()
        wasyncore.close_all(self._server._map)


def serve(app: Flask, settings: ServeConfig) -> None:
    """Serve `app` until Ctrl-C or SIGTERM; raises `UsageError` when it cannot listen."""
    server = Server(app, settings)
    say(f"darkroom serves {app.extensions['darkroom'].engine.bundle.name} at {server.url}   (Ctrl-C stops it)")
    if not _is_loopback(settings.host):
        say(f"--host {settings.host} opens it to the network: whoever reaches port {server.port} can use it")
    with _stopping_on_signals(server):
        server.run()
    say("stopped")


@contextmanager
def _stopping_on_signals(server: Server) -> Iterator[None]:
    """Stop the server on Ctrl-C, and on SIGTERM, which service managers send; a second one kills.

    An exception out of a signal handler could strike in the middle of waitress and lose a connection that was just
    accepted; so the server is asked to stop, from another thread, since its own may hold the lock that this takes.
    """
    if threading.current_thread() is not threading.main_thread():  # signals belong to that one
        yield
        return

    def request(number: int, frame: FrameType | None) -> None:
        signal.signal(number, before[number])
        threading.Thread(target=server.stop).start()

    before = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, request)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _listen(settings: ServeConfig) -> socket.socket:
    host, port = settings.host, settings.port
    try:
        family, kind, protocol, _, address = _resolve(host, port)
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UsageError(f"--host {host} is no address of this machine: try 127.0.0.1 or 0.0.0.0") from error
    try:
        if os.name == "posix":  # there it frees ports of servers that just ended; elsewhere it would share live ones
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        raise UsageError(_why_not(error, host, port)) from error
    return listener


def _resolve(host: str, port: int) -> tuple[Any, ...]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return min(found, key=lambda entry: entry[0] != socket.AF_INET)


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use by another program: stop that one or give another --port"
    if error.errno == errno.EACCES:
        return f"port {port} is reserved for the system: give a --port from 1024 on"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--host {host} is no address of this machine: try 127.0.0.1 or 0.0.0.0"
    return f"cannot listen on {host} port {port} ({os.strerror(error.errno or 0)}): give another --host or --port"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
