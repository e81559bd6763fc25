"""How often one client may ask: a bucket of tokens for each, in bounded memory."""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

MOST_CLIENTS = 10_000
"""Of more, those who have been quiet for longest are forgotten."""

BURST = 6
"""A bucket holds what fills it in a sixth of a minute, so that a page full of pictures is no offence."""


ROUNDING = 1e-6
"""Seconds by which sums of floats may be off."""


class Pace:
    """Allows each client so many requests a minute, the first few of them at once."""

    def __init__(self, per_minute: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_minute / 60
        self._most = max(1.0, per_minute / BURST)
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when they were counted

    def seconds_to_wait(self, client: str) -> int:
        """0 where the client may go on, which is counted, or the whole seconds after which it may."""
        now = self._clock()
        with self._lock:
            tokens, counted = self._buckets.pop(client, (self._most, now))
            tokens = min(self._most, tokens + (now - counted) * self._per_second)
            allowed = tokens >= 1
            self._buckets[client] = (tokens - allowed, now)
            if len(self._buckets) > MOST_CLIENTS:
                self._buckets.popitem(last=False)
        return 0 if allowed else max(1, math.ceil((1 - tokens) / self._per_second - ROUNDING))


def client_of(address: str | None) -> str:
    """What counts as one client: an IPv4 address, or the /64 that a household or server has of IPv6."""
    try:
        parsed = ip_address(address or "")
    except ValueError:
        return address or ""
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or IPv6Address(int(parsed) >> 64 << 64))
