"""A load generator on keep-alive connections: as fast as answers come, or at a rate that is kept whatever happens."""

import http.client
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

BOUNDARY = "darkroom-load"


@dataclass(frozen=True)
class Request:
    """One kind of request, and what its answer must contain."""

    path: str
    body: bytes
    expected: bytes = b""

    @property
    def headers(self) -> dict[str, str]:
        """Those of a multipart form."""
        return {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


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


def saturate(port: int, requests: Sequence[Request], *, seconds: float, connections: int) -> tuple[float, Tally]:
    """Requests a second when each connection asks again as soon as it is answered."""
    end = time.perf_counter() + seconds

    def turns(number: int) -> tuple[float, int] | None:
        return (time.perf_counter(), number) if time.perf_counter() < end else None

    start = time.perf_counter()
    tally = _run(port, requests, connections, turns)
    return len(tally.seconds) / (time.perf_counter() - start), tally


def at_rate(port: int, requests: Sequence[Request], *, rate: float, seconds: float, connections: int) -> Tally:
    """Latencies at a rate; a request that could not begin in time counts from when it should have begun."""
    start, total = time.perf_counter(), int(rate * seconds)
    lock, begun = threading.Lock(), 0

    def turns(_: int) -> tuple[float, int] | None:
        nonlocal begun
        with lock:
            number, begun = begun, begun + 1
        if number >= total:
            return None
        due = start + number / rate
        time.sleep(max(0.0, due - time.perf_counter()))
        return due, number

    return _run(port, requests, connections, turns)


def _run(
    port: int, requests: Sequence[Request], connections: int, turns: Callable[[int], tuple[float, int] | None]
) -> Tally:
    tallies = [Tally() for _ in range(connections)]

    def work(place: int) -> None:
        connection, number = http.client.HTTPConnection("127.0.0.1", port, timeout=60), place
        while (turn := turns(number)) is not None:
            begun, number = turn[0], number + connections
            connection = ask(connection, port, requests[turn[1] % len(requests)], begun, tallies[place])
        connection.close()

    threads = [threading.Thread(target=work, args=(place,)) for place in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = Tally()
    for tally in tallies:
        total.add(tally)
    return total


def ask(
    connection: http.client.HTTPConnection, port: int, request: Request, begun: float, tally: Tally
) -> http.client.HTTPConnection:
    """Send one request and count what comes back; returns the connection to use next."""
    try:
        connection.request("POST", request.path, body=request.body, headers=request.headers)
        response = connection.getresponse()
        content = response.read()
    except (OSError, http.client.HTTPException):
        tally.lost += 1
        connection.close()
        return http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    if response.status in (429, 503):
        tally.refused += 1
    elif response.status != 200 or request.expected not in content:
        tally.wrong += 1
    else:
        tally.seconds.append(time.perf_counter() - begun)
    return connection
