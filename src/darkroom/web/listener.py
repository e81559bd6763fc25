"""waitress with hard limits: a bounded queue, bounded memory, no slow clients, and a stop that loses no answer.

A request that is refused here never reaches the application; it is answered in the application's shape all the same.
"""

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from flask import Flask
from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.proxy_headers import MalformedProxyHeader
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, Task, ThreadedTaskDispatcher, WSGITask
from waitress.utilities import BadRequest, Error

from darkroom.config import ServeConfig, origins
from darkroom.engines.choice import threads_of
from darkroom.web import cors, tracing
from darkroom.web.headers import SECURITY_HEADERS
from darkroom.web.metrics import Metrics
from darkroom.web.parser import BusyError, Memory, Parser
from darkroom.web.problems import COME_BACK_SECONDS, respond_outside
from darkroom.web.proxies import Proxy
from darkroom.web.service import MEGA, Limits

IDLE_SECONDS = 60
"""After so long without a byte a connection is closed."""

SILENT_SECONDS = 10
"""After so long a connection is closed on which not one byte has ever come; browsers open some in advance."""

FRESH_SECONDS = 1.0
"""When stopping, a connection as young as this may still be about to send its request."""

CHUNK = 65_536
"""Bytes of a body that are read at once: with waitress's 8,192, a photograph takes hundreds of turns of the loop. Of
heads no more are read, since thousands of requests fit into a larger piece."""

LARGEST_HEAD = 32_768
"""Bytes of a request's line and headers."""

LOOKAHEAD = 1
"""Requests of one connection that are read while another one of it is answered."""

MOST_AHEAD = 3
"""Requests of one connection that may wait behind another one of it, where they come in one piece; each answer that is
not taken stays in memory."""

READING = frozenset({"GET", "HEAD", "OPTIONS"})
"""Of these no answer asks the engine, but for that of `ASKING`, so that threads of their own give them: a server that
is busy lives, must be able to say so, and shows its pages."""

ASKING = frozenset({"/readyz"})
"""Answered by another one, since this asks the engine."""


class RefusalTask(ErrorTask):  # type: ignore[misc]  # waitress has no types
    """Answers what never reaches the application (a bad request line, a body too large) in the application's shape."""

    def execute(self) -> None:
        """Write the problem, note it, and close the connection."""
        _refuse(self, self.request.error)


class ApplicationTask(WSGITask):  # type: ignore[misc]  # waitress has no types
    """A request for the application, which learns how long it has waited, and who asks."""

    wrote_header: bool

    def execute(self) -> None:
        """Answer; a server that is stopping says that it will close the connection."""
        server, environ = self.channel.server, self.get_environment()
        if server.stopping:
            self.set_close_on_finish()
        environ.pop("wsgi.file_wrapper", None)  # an answer that is not taken would keep its file open
        environ["darkroom.metrics_port"] = self.channel.is_for_metrics
        environ["darkroom.waited"] = time.monotonic() - getattr(self.request, "arrived", time.monotonic())
        try:
            server.proxy.apply(environ)
        except MalformedProxyHeader as error:
            self.complete = True  # as if the application had begun to answer
            _refuse(self, BadRequest(f"The header {error.header} is malformed."))
        else:
            super().execute()

    def write(self, data: bytes) -> None:
        """Send head and body at once where the body is all there, which is usual."""
        whole = (
            self.complete and not self.wrote_header and self.content_length == len(data) and self.status[:3] == "200"
        )
        if not whole or self.request.command == "HEAD":
            super().write(data)
            return
        self.channel.write_soon(self.build_response_header() + data)
        self.wrote_header = True
        self.content_bytes_written += len(data)


def _refuse(task: Task, error: Error) -> None:
    """Answer with a problem, note it, and close the connection."""
    request, server = task.request, task.channel.server
    path, trace = getattr(request, "path", ""), tracing.sane_id(request.headers.get("X_REQUEST_ID"))
    accept = request.headers.get("ACCEPT", "")
    response = respond_outside(server.app, error.code, server.words_for(error), path=path, accept=accept)
    body = response.get_data()
    headers = {
        **SECURITY_HEADERS,
        **cors.headers_for(path, request.headers.get("ORIGIN"), server.origins),
        "Content-Type": response.content_type,
        tracing.HEADER: trace,
        "Cache-Control": "no-store",
        **({"Retry-After": str(COME_BACK_SECONDS)} if isinstance(error, BusyError) else {}),
    }
    task.status = f"{error.code} {error.reason}"
    task.response_headers.extend(headers.items())
    task.set_close_on_finish()
    task.content_length = len(body)
    server.note_refusal(task, id=trace, status=error.code, bytes_out=len(body))
    task.write(body)


class Channel(HTTPChannel):  # type: ignore[misc]  # waitress has no types
    """A connection of our server."""

    task_class = ApplicationTask
    error_task_class = RefusalTask

    def __init__(self, server: "Listener", *arguments: Any, **options: Any) -> None:
        super().__init__(server, *arguments, **options)
        self.answered = 0.0
        self.is_for_metrics = False
        self.is_served = False
        self.is_watched = False
        self.has_ended = False

    def parser_class(self, adjustments: Adjustments) -> HTTPRequestParser:
        """A request that begins to arrive, or that stands for an answer that failed."""
        return Parser(adjustments, self.server.memory)

    def service(self) -> None:
        """Answer one request; the loop is woken only where something is left for it to do.

        It reads on meanwhile (`channel_request_lookahead`), so that it need not be told that it may.
        """
        self.is_served = True
        try:
            with self.server.not_woken():
                super().service()
        except BaseException:
            self.cut_off()
            raise
        finally:
            self.is_served = False
            self.answered = time.monotonic()
            left = self.requests or self.total_outbufs_len or self.will_close or self.close_when_flushed
            if self.connected and (left or not self.is_watched):
                self.server.pull_trigger()

    def readable(self) -> bool:
        """Whether the loop is to read, while an answer is made, too; noted, so that threads know when to wake it."""
        self.is_watched = False  # before looking: whoever ends `service` from here on wakes the loop
        waits = self.has_ended and self.requests
        self.is_watched = not waits and bool(super().readable())
        return self.is_watched

    def handle_read(self) -> None:
        """Read; a client that will say no more still gets the answers that it waits for."""
        if self.requests:
            with suppress(OSError):
                self.has_ended = not self.socket.recv(1, socket.MSG_PEEK)
        if not (self.has_ended and self.requests):
            super().handle_read()

    def recv(self, size: int) -> bytes:
        """Receive; more at once of a body whose length is known, which is of one request."""
        rest = getattr(getattr(self.request, "body_rcv", None), "remain", 0)
        return bytes(super().recv(max(size, min(CHUNK, rest))))

    def received(self, data: bytes) -> bool:
        """Take what has come; requests that are too many at once are refused, and their connection is closed."""
        is_taken = bool(super().received(data))
        with self.requests_lock:
            for request in self.requests[MOST_AHEAD + 2 :]:
                request.close()
            del self.requests[MOST_AHEAD + 2 :]
            if len(self.requests) > MOST_AHEAD + 1:
                self.requests[-1].error = BusyError("Too many requests came at once on one connection.")
        return is_taken

    def send(self, data: bytes, do_close: bool = True) -> int:
        """Send; a thread leaves it to the loop to close what is broken."""
        return int(super().send(data, do_close and not self.is_served))

    def writable(self) -> bool:
        """Whether the loop has something to send: while an answer is made, its thread sends by itself."""
        return bool(self.will_close or self.close_when_flushed or (self.total_outbufs_len and not self.is_served))

    def handle_close(self) -> None:
        """Let go of a request that had not arrived yet."""
        if self.request is not None:
            self.request.close()
        super().handle_close()

    def is_slow(self, now: float, seconds: float) -> bool:
        """Whether the client takes too long to send its request, or to take its answer."""
        coming, going = self.request, self.answered and self.total_outbufs_len and not self.requests
        return bool((coming is not None and now - coming.began > seconds) or (going and now - self.answered > seconds))

    def is_silent(self, now: float) -> bool:
        """Whether the client has never said anything; `now` as `time.time` has it."""
        return bool(self.last_activity == self.creation_time and now - self.creation_time > SILENT_SECONDS)

    def cut_off(self) -> None:
        """Have the loop close the connection."""
        self.will_close = True
        with suppress(OSError):  # one that takes nothing is never writable, and would stay for ever
            self.socket.shutdown(socket.SHUT_RDWR)

    def is_busy(self) -> bool:
        """Whether anything is under way, or may be about to be."""
        fresh = self.answered == 0 and time.time() - self.creation_time < FRESH_SECONDS
        return bool(self.request is not None or self.requests or self.total_outbufs_len or fresh)


class Lanes(ThreadedTaskDispatcher):  # type: ignore[misc]  # waitress has no types
    """Threads that answer, with a bounded queue before them, and more for what must not wait behind pictures."""

    def __init__(self, *, threads: int, queue: int) -> None:
        super().__init__()
        self._most = queue
        self._quick, self._asking = ThreadedTaskDispatcher(), ThreadedTaskDispatcher()
        self._quick.set_thread_count(2)  # nothing that these do waits for the engine
        self._asking.set_thread_count(1)
        self.set_thread_count(threads)

    def add_task(self, task: Channel) -> None:
        """Put a connection whose request has arrived into a lane."""
        request = task.requests[0]
        if request.error is None and f"/{request.path.lstrip('/')}" in ASKING:
            self._asking.add_task(task)
            return
        if request.error is None and request.command not in READING:
            idle = len(self.threads) - self.active_count  # those who have not taken up yet what they were woken for
            if len(self.queue) < self._most + idle:
                super().add_task(task)
                return
            request.error = BusyError("As many requests wait as may: come back later.")
        self._quick.add_task(task)

    def shutdown(self, cancel_pending: bool = True, timeout: float = 5) -> bool:
        """Stop the threads of all lanes."""
        self._quick.shutdown(cancel_pending, timeout)
        self._asking.shutdown(cancel_pending, timeout)
        return bool(super().shutdown(cancel_pending, timeout))


class Listener(TcpWSGIServer):  # type: ignore[misc]  # waitress has no types
    """Accepts connections on a bound socket."""

    channel_class = Channel
    logger = logging.getLogger("waitress.listener")

    def __init__(self, app: Flask, settings: ServeConfig, bound: socket.socket) -> None:
        self.app = app
        self.stopping = False
        self._thread = threading.local()
        self.memory = Memory(int(settings.max_memory_megabytes * MEGA))
        self.proxy = Proxy.of(settings)
        self.origins = origins(settings.allow_origins)
        self._limits = Limits.of(settings)
        self._transfer_seconds = settings.max_transfer_seconds
        self._most_connections = settings.max_connections
        self._metrics: Metrics | None = getattr(app.extensions.get("darkroom"), "metrics", None)
        lanes = Lanes(threads=threads_of(settings), queue=settings.max_queue)
        super().__init__(
            app,
            {},
            True,
            bound,
            dispatcher=lanes,
            adj=_adjustments(settings, self._limits),
            bind_socket=False,
            sockinfo=(bound.family, bound.type, bound.proto, bound.getsockname()),
        )
        self._show(lanes)

    def maintenance(self, now: float) -> None:
        """Close what is idle, and cut off who is slow."""
        super().maintenance(now)
        moment = time.monotonic()
        for channel in list(self.active_channels.values()):
            if channel.is_silent(now) or channel.is_slow(moment, self._transfer_seconds):
                channel.cut_off()
        self._make_room()

    def handle_accept(self) -> None:
        """Take in a connection, and make room for the next."""
        super().handle_accept()
        self._make_room()

    @contextmanager
    def not_woken(self) -> Iterator[None]:
        """Within it, this thread does not wake the loop."""
        self._thread.is_quiet = True
        try:
            yield
        finally:
            self._thread.is_quiet = False

    def pull_trigger(self) -> None:
        """Wake the loop, where it has not ended."""
        if not getattr(self._thread, "is_quiet", False):
            with suppress(OSError):
                super().pull_trigger()

    def stop_accepting(self) -> None:
        """Take in the connections that wait to be, then refuse further ones; only in the thread of the loop."""
        self.stopping = True
        before = -1
        while before != len(self.active_channels):
            before = len(self.active_channels)
            self.handle_accept()
        self.del_channel()
        self.socket.close()

    def is_busy(self) -> bool:
        """Whether any connection has something under way."""
        return any(channel.is_busy() for channel in list(self.active_channels.values()))

    def words_for(self, error: Error) -> str:
        """What is wrong with a request that was refused, for people."""
        return f"The request is too large: {self._limits.in_words()}." if error.code == 413 else str(error.body)

    def note_refusal(self, task: Task, *, id: str, status: int, bytes_out: int) -> None:
        """Count a request that never reached the application, and write its line."""
        if self._metrics is not None:
            self._metrics.count_refused(status)
        request = task.request
        tracing.record(
            id=id,
            client=self.proxy.client(task.channel.addr[0], request.headers.get("X_FORWARDED_FOR")),
            method=getattr(request, "command", None),
            path=getattr(request, "path", "")[: tracing.LONGEST_PATH],
            status=status,
            seconds=round(time.monotonic() - request.began, 6),
            bytes_in=request.body_bytes_received,
            bytes_out=bytes_out,
            refused=True,
        )

    def _make_room(self) -> None:
        """Where no place is left, close the connection that has been idle for longest, so that nobody is locked out."""
        channels = list(self.active_channels.values())
        idle = [channel for channel in channels if not channel.is_busy()]
        if len(channels) >= self._most_connections and idle:
            min(idle, key=lambda channel: channel.last_activity).cut_off()

    def _show(self, lanes: Lanes) -> None:
        if self._metrics is not None:
            self._metrics.watch("queue", "Requests that wait for a thread.", lambda: len(lanes.queue))
            self._metrics.watch("connections", "Open connections.", lambda: len(self.active_channels))
            self._metrics.watch("held_bytes", "Bytes of requests in memory.", lambda: self.memory.held)


class MetricsDoor(wasyncore.dispatcher):  # type: ignore[misc]  # waitress has no types
    """Another bound socket of a listener, for those who want its numbers and nothing else."""

    def __init__(self, listener: Listener, bound: socket.socket) -> None:
        super().__init__(bound, map=listener._map)
        self.accepting = True
        self._listener = listener

    def readable(self) -> bool:
        """Whether another connection may be let in."""
        return not self._listener.in_connection_overflow

    def writable(self) -> bool:
        """Never: it only accepts."""
        return False

    def handle_accept(self) -> None:
        """Take in a connection."""
        with suppress(OSError):  # as waitress does: one that is gone already, or no descriptor left, ends nothing
            accepted = self.accept()
            if accepted is not None:
                Channel(self._listener, *accepted, self._listener.adj, map=self._map).is_for_metrics = True


def _adjustments(settings: ServeConfig, limits: Limits) -> Adjustments:
    never = 2**62  # what is held in memory is bounded elsewhere; no temporary files, no thread that waits for a reader
    return Adjustments(
        threads=threads_of(settings),
        max_request_body_size=limits.request_bytes,
        max_request_header_size=LARGEST_HEAD,
        inbuf_overflow=never,
        outbuf_overflow=never,
        outbuf_high_watermark=never,
        connection_limit=settings.max_connections + (3 if settings.metrics_port else 2),  # with all that listens
        channel_timeout=IDLE_SECONDS,
        channel_request_lookahead=LOOKAHEAD,
        cleanup_interval=1,
        ident="darkroom",
    )
