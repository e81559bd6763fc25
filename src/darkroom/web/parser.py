"""A request as it arrives: held to the memory that all of them may take, and refused where its end is in doubt."""

import io
import threading
import time
from typing import Any

from waitress.adjustments import Adjustments
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.utilities import BadRequest, Error

TLS = b"\x16\x03"
"""What HTTPS begins with; a client that gets no answer to it waits for a minute."""


class BusyError(Error):  # type: ignore[misc]  # waitress has no types
    """Why a request is refused that would have been answered at another time."""

    code = 503
    reason = "Service Unavailable"


class Memory:
    """The bytes of all requests that arrive, wait or are being answered, held to a bound."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """Bytes held now."""
        return self._held

    def change(self, size: int) -> bool:
        """Hold `size` more bytes, or let go of them where it is negative; False, and no change, beyond the bound."""
        with self._lock:
            if size > 0 and self._held + size > self._most:
                return False
            self._held += size
            return True


class Nothing:
    """A buffer that keeps nothing."""

    def append(self, data: bytes) -> None:
        """Forget `data`."""

    def getfile(self) -> io.BytesIO:
        """What has been kept."""
        return io.BytesIO()

    def close(self) -> None:
        """Nothing to let go of."""

    def __len__(self) -> int:
        return 0


class Parser(HTTPRequestParser):  # type: ignore[misc]  # waitress has no types
    """A request that counts what it holds, and knows when it began and when it was complete."""

    error: Any

    def __init__(self, adjustments: Adjustments, memory: Memory) -> None:
        super().__init__(adjustments)
        self.began = self.arrived = time.monotonic()
        self._memory = memory
        self._held = 0
        self._has_room = True

    def parse_header(self, header_plus: bytes) -> None:
        """Read the head; where it leaves open how long the body is, a proxy in front may have read it otherwise."""
        super().parse_header(header_plus)  # takes Transfer-Encoding away where it has followed it
        if "TRANSFER_ENCODING" in self.headers or (self.chunked and "CONTENT_LENGTH" in self.headers):
            raise ParsingError("The length of the body is told in two ways, or in one that HTTP/1.0 does not know.")

    def received(self, data: bytes) -> int:
        """Take what has come; a request for which there is no room is refused when all of it has come."""
        if not self.headers_finished and not self.header_plus and data.startswith(TLS):
            self.completed, self.error = (
                True,
                BadRequest("HTTPS came to a port of HTTP: ask for http://, or the proxy."),
            )
            return len(data)
        consumed: int = super().received(data)
        if self.completed:
            self.expect_continue = False  # nothing is to come: waitress would send 100, and forget that it is complete
        more = self.body_bytes_received - self._held
        if self._has_room and more > 0:
            self._has_room = self._memory.change(more)
            self._held += more if self._has_room else 0
            if not self._has_room:
                self._forget()
        if self.completed and not self._has_room and self.error is None:
            self.error = BusyError("The server holds as many requests as it can: come back later.")
        self.arrived = time.monotonic()
        return consumed

    def close(self) -> None:
        """Let go of what is held; may be called again."""
        self._let_go()
        super().close()

    def _forget(self) -> None:
        """Go on reading, into nothing: a client that is answered while it sends may never see the answer."""
        self._let_go()
        self.body_rcv.getbuf().close()
        self.body_rcv.buf = Nothing()

    def _let_go(self) -> None:
        self._memory.change(-self._held)
        self._held = 0
