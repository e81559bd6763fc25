"""The production server: waitress, one process, several threads that share an engine."""

import errno
import gc
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from ipaddress import ip_address
from types import FrameType
from typing import Any

from flask import Flask
from waitress import wasyncore

from darkroom.config import ServeConfig
from darkroom.errors import UsageError
from darkroom.progress import say
from darkroom.web import tracing
from darkroom.web.listener import Listener, MetricsDoor
from darkroom.web.service import Service


class Server:
    """A bound server: connections are accepted from its making on and answered while `run` runs."""

    def __init__(self, app: Flask, settings: ServeConfig) -> None:
        bound = _listen(settings.host, settings.port, "--port")
        self.host = settings.host
        self.port: int = bound.getsockname()[1]
        self._stop_seconds = settings.stop_seconds
        self._asked_to_stop = threading.Event()
        self._listener = Listener(app, settings, bound)
        self._map = self._listener._map
        if settings.metrics_port:
            MetricsDoor(self._listener, self._listen_for_metrics(settings))
        for source in (
            "waitress.queue",
            "waitress.listener",
        ):  # a short queue, or no place left for a moment, is no news
            logging.getLogger(source).setLevel(logging.ERROR)

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the page."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::", "") else self.host  # noqa: S104  (compared, not bound)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"

    def _listen_for_metrics(self, settings: ServeConfig) -> socket.socket:
        try:
            return _listen(settings.host, settings.metrics_port or 0, "--metrics-port")
        except UsageError:
            self.close()
            raise

    def run(self) -> None:
        """Answer requests until `stop`, then finish those that have begun."""
        try:
            while not self._asked_to_stop.is_set():
                wasyncore.loop(timeout=1, map=self._map, count=1)
            self._finish()
        finally:
            self.close()

    def stop(self) -> None:
        """Make `run` return when all that has begun is answered; may be called from another thread."""
        self._asked_to_stop.set()
        with suppress(OSError):  # where `run` is awake already, it may end before it is woken
            self._listener.pull_trigger()

    def close(self) -> None:
        """Stop the threads and close all connections; only when `run` does not run."""
        self._listener.task_dispatcher.shutdown(timeout=1)
        wasyncore.close_all(self._map)

    def _finish(self) -> None:
        """Take no more connections, and let the answers of those that are open go out, for as long as is allowed."""
        self._listener.stop_accepting()
        end = time.monotonic() + self._stop_seconds
        while self._listener.is_busy() and time.monotonic() < end:
            wasyncore.loop(timeout=0.1, map=self._map, count=1)


def serve(app: Flask, settings: ServeConfig) -> None:
    """Serve `app` until Ctrl-C or SIGTERM; raises `UsageError` when it cannot listen."""
    server = Server(app, settings)
    service: Service = app.extensions["darkroom"]
    say(f"darkroom serves {service.engine.bundle.name} at {server.url}   (Ctrl-C stops it)")
    if service.papers.samples:
        say(f"whoever sees the page sees {len(service.papers.samples)} sample pictures on it")
    if not _is_loopback(settings.host):
        say(f"--host {settings.host} opens it to the network: whoever reaches port {server.port} can use it")
    logged = tracing.writing_access_log() if settings.access_log else nullcontext()
    with logged, _stopping_on_signals(server), _settled():
        server.run()
    say("stopped")


@contextmanager
def _settled() -> Iterator[None]:
    """Have the garbage collector pass over what is there already: looking through it, which it does every few thousand
    requests, holds up all threads for tens of milliseconds."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


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


def _listen(host: str, port: int, option: str) -> socket.socket:
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
        raise UsageError(_why_not(error, host, port, option)) from error
    return listener


def _resolve(host: str, port: int) -> tuple[Any, ...]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return min(found, key=lambda entry: entry[0] != socket.AF_INET)


def _why_not(error: OSError, host: str, port: int, option: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use by another program: stop that one or give another {option}"
    if error.errno == errno.EACCES:
        return f"port {port} is reserved for the system: give a {option} from 1024 on"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--host {host} is no address of this machine: try 127.0.0.1 or 0.0.0.0"
    return f"cannot listen on {host} port {port} ({os.strerror(error.errno or 0)}): give another --host or {option}"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
