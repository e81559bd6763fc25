"""A load generator on keep-alive connections: as fast as answers come, or at a rate that is kept whatever happens.

One thread and an event loop, so that it takes as little as possible of the cores that it shares with the server.
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

BOUNDARY = "darkroom-load"
PATIENCE = 60
"""Seconds."""


@dataclass(frozen=True)
class Request:
    """One kind of request, and what its answer must contain."""

    path: str
    body: bytes
    expected: bytes = b""
    status: int = 200

    @property
    def headers(self) -> dict[str, str]:
        """Those of a multipart form."""
        return {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}

    @cached_property
    def content(self) -> bytes:
        """All of it, as it is sent."""
        lines = [f"POST {self.path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(self.body)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


@dataclass
class Tally:
    """What came of the requests: seconds of each that was answered rightly, and how many were not."""

    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    """Answered with 503, or 429."""
    wrong: int = 0
    """Another status, or another answer than the known one."""
    lost: int = 0
    """Without an answer."""

    def add(self, other: "Tally") -> None:
        """Count another one's, too."""
        self.seconds += other.seconds
        self.refused, self.wrong, self.lost = (
            self.refused + other.refused,
            self.wrong + other.wrong,
            self.lost + other.lost,
        )

    def quantile(self, share: float) -> float:
        """Seconds within which that share was answered."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds) if self.seconds else float("nan")


def multipart(content: bytes, name: str = "picture.jpg") -> bytes:
    """A form with one file in the field `files`."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
    return f"{head}Content-Type: image/jpeg\r\n\r\n".encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


Turn = tuple[float, int]
"""When a request was due, and its number."""


def saturate(port: int, requests: Sequence[Request], *, seconds: float, connections: int) -> tuple[float, Tally]:
    """Requests a second when each connection asks again as soon as it is answered."""
    start, number = time.perf_counter(), 0

    def turns() -> Turn | None:
        nonlocal number
        number += 1
        now = time.perf_counter()
        return (now, number) if now < start + seconds else None

    tally = asyncio.run(_run(port, requests, connections, turns))
    return len(tally.seconds) / (time.perf_counter() - start), tally


def at_rate(port: int, requests: Sequence[Request], *, rate: float, seconds: float, connections: int) -> Tally:
    """Latencies at a rate; a request that could not begin in time counts from when it should have begun."""
    start, total, begun = time.perf_counter(), int(rate * seconds), 0

    def turns() -> Turn | None:
        nonlocal begun
        number, begun = begun, begun + 1
        return (start + number / rate, number) if number < total else None

    return asyncio.run(_run(port, requests, connections, turns))


async def _run(port: int, requests: Sequence[Request], connections: int, turns: Callable[[], Turn | None]) -> Tally:
    tally = Tally()

    async def work() -> None:
        exchange: Exchange | None = None
        while (turn := turns()) is not None:
            due, number = turn
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            exchange = await ask(exchange, port, requests[number % len(requests)], due, tally)
        if exchange is not None:
            exchange.transport.close()

    await asyncio.gather(*(work() for _ in range(connections)))
    return tally


async def ask(
    exchange: "Exchange | None", port: int, request: Request, begun: float, tally: Tally
) -> "Exchange | None":
    """Send one request and count what comes back; returns the connection to use next, or None where it closed."""
    try:
        async with asyncio.timeout(PATIENCE):
            if exchange is None:
                _, exchange = await asyncio.get_running_loop().create_connection(Exchange, "127.0.0.1", port)
            status, content = await exchange.ask(request.content)
    except OSError:  # a timeout is one, too
        tally.lost += 1
        if exchange is not None:
            exchange.transport.close()
        return None
    if status in (429, 503):
        tally.refused += 1
    elif status != request.status or request.expected not in content:
        tally.wrong += 1
    else:
        tally.seconds.append(time.perf_counter() - begun)
    return None if exchange.is_closing else exchange


class Exchange(asyncio.Protocol):
    """One connection, on which one answer after the other is awaited."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.is_closing = False
        self._received = bytearray()
        self._needed: float = 0
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def ask(self, content: bytes) -> "asyncio.Future[tuple[int, bytes]]":
        """Send a request; its answer will be status and content."""
        self._received.clear()
        self._needed = 0
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(content)
        return self._answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the other end."""
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Collect an answer until it is whole."""
        self._received += data
        if not self._needed and (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._received[:end]).lower()
            self.is_closing = head.startswith(b"http/1.0") or b"connection: close" in head
            _, found, length = head.partition(b"content-length:")
            self._needed = end + 4 + int(length.split(b"\r\n", 1)[0]) if found else float("inf")
        if self._needed and len(self._received) >= self._needed:
            self._finish()

    def connection_lost(self, error: Exception | None) -> None:
        """What was sent without a length ends here; all else is lost."""
        self.is_closing = True
        if self._needed == float("inf"):
            self._finish()
        elif self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError("the connection was closed before the answer was whole"))

    def _finish(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((int(self._received[9:12]), bytes(self._received)))
