"""What the views share: the engine, the limits, and the way from uploads to answers."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from flask import Flask, current_app, g

from darkroom.config import ServeConfig
from darkroom.engines.base import Engine
from darkroom.engines.decoding import Bounds
from darkroom.engines.explanation import Explanation, explain
from darkroom.engines.prediction import Answer, Failure, predict_pictures
from darkroom.errors import ImageError
from darkroom.web.metrics import Metrics
from darkroom.web.papers import Papers

MEGA = 10**6

Upload = tuple[str, bytes]


@dataclass(frozen=True)
class Limits:
    """What one request may hold."""

    request_bytes: int
    file_bytes: int
    files: int
    pixels: int

    @classmethod
    def of(cls, settings: ServeConfig) -> "Limits":
        """The limits of `settings` in bytes and pixels."""
        return cls(
            request_bytes=int(settings.max_request_megabytes * MEGA),
            file_bytes=int(settings.max_file_megabytes * MEGA),
            files=int(settings.max_files),
            pixels=int(settings.max_megapixels * MEGA),
        )

    def apply(self, app: Flask) -> None:
        """Let Flask refuse a request by its announced length and stop reading one that turns out longer."""
        app.config["MAX_CONTENT_LENGTH"] = self.request_bytes
        app.config["MAX_FORM_PARTS"] = self.files + 100  # a few too many are counted and told, a flood is cut off

    def in_words(self) -> str:
        """The limits as a sentence for people."""
        return (
            f"a request may hold up to {self.files} pictures of up to {megabytes(self.file_bytes)} each, "
            f"{megabytes(self.request_bytes)} in all"
        )

    def to_json(self) -> dict[str, int]:
        """The limits as numbers for programs."""
        return {f"max_{name}": value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Service:
    """An engine within limits, its papers and its numbers; shared by all threads of the server."""

    engine: Engine
    limits: Limits
    decode_seconds: float
    papers: Papers = field(default_factory=Papers)
    metrics: Metrics = field(default_factory=Metrics)

    @property
    def bounds(self) -> Bounds:
        """What decoding one picture may take."""
        return Bounds(self.limits.pixels, self.decode_seconds)

    def answer(self, uploads: Sequence[Upload], *, top: int | None = None) -> list[Answer]:
        """An answer or an error for each upload, in order."""
        g.pictures = len(uploads)
        accepted = [upload for upload in uploads if len(upload[1]) <= self.limits.file_bytes]
        answered = iter(predict_pictures(self.engine, accepted, bounds=self.bounds, top=top))
        answers = [
            next(answered) if len(content) <= self.limits.file_bytes else self._too_large(name, len(content))
            for name, content in uploads
        ]
        self.metrics.count_answers(answers)
        return answers

    def explain(self, upload: Upload, *, label: str | None) -> Explanation | Failure:
        """Where in a picture `label`, or its best class, is seen; raises what `explain` does but `ImageError`."""
        g.pictures = 1
        name, content = upload
        if len(content) > self.limits.file_bytes:
            return self._too_large(name, len(content))
        try:
            return explain(self.engine, name, content, label=label, bounds=self.bounds)
        except ImageError as error:
            return Failure(name, str(error))

    def _too_large(self, name: str, size: int) -> Failure:
        return Failure(name, f"too large: {megabytes(size)}, where {megabytes(self.limits.file_bytes)} are allowed")


def service() -> Service:
    """The service of the application that handles the current request."""
    return cast(Service, current_app.extensions["darkroom"])


def accuracy(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """Accuracy on the test set, or else on validation: `split`, `value`, `low`, `high` and `n` where known."""
    for split in ("test", "validation"):
        found = (metrics.get(split) or {}).get("accuracy")
        if isinstance(found, Mapping) and "value" in found:
            return {"split": split, "n": metrics[split].get("n"), **found}
    return None


def megabytes(size: int) -> str:
    """A size in bytes for people, rounded to what matters."""
    return f"{size / MEGA:.3g} MB" if size >= MEGA / 10 else f"{size / 1000:.3g} kB"
