"""What is common to both ways of asking a TensorFlow Serving, gRPC and REST."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from darkroom.engines.base import Answers
from darkroom.errors import EngineError

SIGNATURE = "serving_default"
INPUT = "pixels"
AVAILABLE = "AVAILABLE"

MOST_BYTES = 2**27
"""Of one answer: 64 pictures with 21,841 classes, as text, and to spare. A server is not trusted with our memory."""


class UnavailableError(EngineError):
    """Nobody answered, or said to come back later: worth another attempt."""


class GoneError(EngineError):
    """The server knows no such model, version or label (any more)."""


class TooSlowError(EngineError):
    """No answer came in time."""


@dataclass(frozen=True)
class Asked:
    """A model on a server: its newest version, or one by its number or label."""

    name: str
    version: int | None = None
    label: str = ""

    def __str__(self) -> str:
        version = f"version {self.version} of " if self.version is not None else ""
        return f"{version}{self.name}{f' at label {self.label}' if self.label else ''}"


@dataclass(frozen=True)
class VersionStatus:
    """What the server says of one version: its `state` by name, and an error where it could not be loaded."""

    version: int
    state: str
    error: str = ""


class Transport(ABC):
    """A connection that threads may share; every call has a deadline in seconds and raises only `EngineError`s."""

    @abstractmethod
    def predict(self, asked: Asked, pixels: npt.NDArray[np.uint8], seconds: float) -> tuple[Answers, int | None]:
        """Answers for pixels (N, H, W, 3), and the version that gave them where the protocol tells."""

    @abstractmethod
    def status(self, name: str, seconds: float) -> list[VersionStatus]:
        """All versions of a model that the server knows of."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the connection; closing twice is allowed."""


def one_line(text: object) -> str:
    """What a server said, short enough for a message."""
    return " ".join(str(text).split())[:300]
