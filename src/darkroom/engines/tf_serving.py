"""The scale-out engine: a TensorFlow Serving that runs elsewhere answers, over gRPC or REST.

What it answers is proved as anywhere: a version is asked about the bundle's golden pictures before any other picture.
Without a version or a label, the newest version that is available at the start is asked by its number from then on.
When the server no longer has it, the newest one is looked for again, and proved again.
"""

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from darkroom.bundle import Bundle, BundleInfo, Golden
from darkroom.config import EngineConfig
from darkroom.engines.base import Answers, Engine, check_golden
from darkroom.engines.tf_serving_transport import (
    AVAILABLE,
    Asked,
    GoneError,
    TooSlowError,
    Transport,
    UnavailableError,
    VersionStatus,
)
from darkroom.errors import EngineError, UsageError
from darkroom.progress import say

ATTEMPTS = 5
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds; pauses are drawn between nothing and a bound that doubles, so that clients that were refused together do not
come back together ("full jitter", M. Brooker 2015)."""

POLL_SECONDS = 0.5
COMING = ("UNKNOWN", "START", "LOADING")
"""States of a version that may still become available."""

Result = TypeVar("Result")
Ask = Callable[[npt.NDArray[np.uint8]], Answers]


class TfServingEngine(Engine):
    """Answers that a server gives; `open` connects, waits until the model is loaded, and proves it."""

    def __init__(self, bundle: BundleInfo, golden: Golden, transport: Transport, settings: EngineConfig) -> None:
        super().__init__(bundle)
        self._golden = golden
        self._transport = transport
        self._settings = settings
        self._name = settings.tf_serving_model or bundle.serving_name
        self._asked = Asked(self._name, settings.tf_serving_version, settings.tf_serving_label)
        self._proved: int | None = None
        self._settling = threading.Lock()

    @classmethod
    def open(cls, folder: Path, settings: EngineConfig) -> "TfServingEngine":
        """Connect to the server of `settings` for the bundle in `folder`.

        Raises `BundleError` for a bundle that is changed or prepares pictures differently here, `UsageError` for an
        address that is none, and `EngineError` where the server does not have the model in time or answers the golden
        pictures differently.
        """
        bundle = Bundle.open(folder)
        bundle.check_preprocessing()
        engine = cls(bundle.info, bundle.golden, connect(settings.tf_serving_url), settings)
        try:
            engine.settle(settings.tf_serving_wait)
        except BaseException:
            engine.close()
            raise
        return engine

    @property
    def rows(self) -> int:
        """Pictures in one request; a server with batching refuses more than its own bound."""
        return min(super().rows, self._settings.tf_serving_batch)

    def run(self, pixels: npt.NDArray[np.uint8]) -> Answers:
        """Answer for one batch (N, H, W, 3), in time: looking for another version and proving it included."""
        end = time.monotonic() + self._settings.tf_serving_timeout
        asked = self._asked
        try:
            answers, version = self._ask(pixels, asked, end)
        except GoneError:
            if self._settings.tf_serving_version is not None or self._settings.tf_serving_label:
                raise
            self._resettle(asked, end)
            answers, version = self._ask(pixels, self._asked, end)
        if version is not None and version != self._proved:  # behind a label the server may exchange it
            self._prove(version, end)
        return answers

    def status(self) -> list[VersionStatus]:
        """What the server says of the versions of the model; raises `EngineError`."""
        return self._patiently(lambda seconds: self._transport.status(self._name, seconds))

    def settle(self, seconds: float) -> None:
        """Wait up to so long until a version that may be asked is available, prove it, and ask it from now on."""
        self._settle(time.monotonic() + seconds)

    def _settle(self, wait_until: float, end: float | None = None) -> None:
        """The same; by `end`, where there is one, all of it is done or given up."""
        wanted = self._settings.tf_serving_version
        version = self._await_version(wanted, wait_until, end)
        label = self._settings.tf_serving_label
        asked = Asked(self._name, None, label) if label else Asked(self._name, version)
        if label:
            answered = self._ask(self._golden.pixels[:1], asked, end)[1]
            version = version if answered is None else answered
        self._hold_to_golden(asked, end)
        self._asked, self._proved = asked, version

    def close(self) -> None:
        """Let go of the connection."""
        self._transport.close()

    def _resettle(self, gone: Asked, end: float) -> None:
        """Look for another version, once for all threads that miss this one."""
        with self._alone(end):
            if self._asked == gone:
                say(f"{gone} is gone from {self._settings.tf_serving_url}: looking for the newest version")
                self._settle(end, end)

    def _prove(self, version: int, end: float) -> None:
        """Hold a version that was not asked for against the golden pictures; raises `EngineError` unless it agrees."""
        with self._alone(end):
            if version != self._proved:
                self._hold_to_golden(Asked(self._name, version), end)
                self._proved = version

    @contextmanager
    def _alone(self, end: float) -> Iterator[None]:
        """One thread at a time; raises `TooSlowError` for the others when their time is over."""
        if not self._settling.acquire(timeout=max(0.0, end - time.monotonic())):
            raise TooSlowError(f"another version of {self._name} is not proved yet: ask again later")
        try:
            yield
        finally:
            self._settling.release()

    def _hold_to_golden(self, asked: Asked, end: float | None) -> None:
        """Raise `EngineError` unless what is asked so answers the golden pictures as the network did."""
        pinned = _Pinned(self.bundle, lambda pixels: self._ask(pixels, asked, end)[0], rows=self.rows)
        check_golden(pinned, self._golden)

    def _ask(self, pixels: npt.NDArray[np.uint8], asked: Asked, end: float | None) -> tuple[Answers, int | None]:
        answers, version = self._patiently(lambda seconds: self._transport.predict(asked, pixels, seconds), end)
        if asked.version is not None and version not in (None, asked.version):
            raise EngineError(f"TensorFlow Serving was asked for {asked}, and version {version} answered")
        return answers, version

    def _patiently(self, call: Callable[[float], Result], end: float | None = None) -> Result:
        """The result of `call`, which gets the seconds that are left; tried again only where nobody was available.

        Without an `end` it has the timeout for itself.
        """
        end = time.monotonic() + self._settings.tf_serving_timeout if end is None else end
        for attempt in itertools.count(1):
            try:
                return call(self._left(end))
            except UnavailableError:
                bound = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (attempt - 1))
                pause = random.uniform(0, bound)  # noqa: S311  (nothing secret about it)
                if attempt == ATTEMPTS or time.monotonic() + pause >= end:
                    raise
                time.sleep(pause)
        raise AssertionError  # the loop has no end

    def _left(self, end: float) -> float:
        """Seconds that are left; raises `TooSlowError` where there are none."""
        left = end - time.monotonic()
        if left <= 0:
            raise TooSlowError(
                f"TensorFlow Serving at {self._settings.tf_serving_url} did not answer within "
                f"{self._settings.tf_serving_timeout:.1f} seconds"
            )
        return left

    def _await_version(self, wanted: int | None, wait_until: float, end: float | None) -> int:
        """The version to ask, once the server says that it is available.

        Raises `EngineError` when that takes too long, or at once where the version could not be loaded.
        """
        told = False
        while True:
            found, why = self._look(wanted, end)
            if found is not None:
                return found
            if time.monotonic() >= wait_until:
                raise EngineError(
                    f"{Asked(self._name, wanted)} is not served at {self._settings.tf_serving_url} ({why}): start "
                    "TensorFlow Serving with the folder that `darkroom export RUN --format saved-model` wrote"
                )
            if not told:
                say(f"waiting for {Asked(self._name, wanted)} at {self._settings.tf_serving_url}: {why}")
                told = True
            time.sleep(min(POLL_SECONDS, max(0.0, wait_until - time.monotonic())))

    def _look(self, wanted: int | None, end: float | None) -> tuple[int | None, str]:
        """The version to ask, or None and why there is none yet."""
        try:
            seconds = self._settings.tf_serving_timeout if end is None else self._left(end)
            statuses = self._transport.status(self._name, seconds)
        except (UnavailableError, GoneError, TooSlowError) as error:
            return None, str(error)
        known = [status for status in statuses if wanted in (None, status.version)]
        available = [status.version for status in known if status.state == AVAILABLE]
        if available:
            return max(available), ""
        failed = [status for status in known if status.error]
        if failed and not any(status.state in COMING for status in known):
            last = Asked(self._name, failed[-1].version)
            raise EngineError(f"TensorFlow Serving could not load {last}: {failed[-1].error}")
        states = ", ".join(f"version {status.version} is {status.state}" for status in statuses)
        return None, states or "it knows of no version"


class _Pinned(Engine):
    """One way of asking as an engine of its own, for the proof that comes before anybody else may ask so."""

    def __init__(self, bundle: BundleInfo, ask: Ask, *, rows: int) -> None:
        super().__init__(bundle)
        self._ask = ask
        self._rows = rows

    @property
    def rows(self) -> int:
        return self._rows

    def run(self, pixels: npt.NDArray[np.uint8]) -> Answers:
        return self._ask(pixels)

    def close(self) -> None:
        pass


def connect(url: str) -> Transport:
    """A connection to a server; nothing is sent yet. Raises `UsageError` for an address that is none."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"--tf-serving-url is {url} ({error}): give grpc://HOST:8500 or http://HOST:8501") from error
    if parts.scheme in ("grpc", "grpcs") and host and port:
        from darkroom.engines.tf_serving_grpc import GrpcTransport

        return GrpcTransport(parts.netloc, secure=parts.scheme == "grpcs")
    if parts.scheme in ("http", "https") and host:
        from darkroom.engines.tf_serving_rest import RestTransport

        return RestTransport(url)
    raise UsageError(f"--tf-serving-url is {url}: give grpc://HOST:8500 or http://HOST:8501")
