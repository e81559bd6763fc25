"""Whether the engine answers, found out by asking it; by one question at a time, however many ask."""

import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from flask import Flask, current_app

from darkroom.engines.base import Engine
from darkroom.errors import EngineError

LONGEST_SECONDS = 2.0
"""An engine that takes longer over a black picture is not ready; who watches has not to wait for it either."""

FRESH_SECONDS = 1.0
"""For so long an answer holds: whoever asks more often, and needs no key for it, costs nothing."""


@dataclass(frozen=True)
class Question:
    """A black picture that the engine was asked about, and when."""

    begun: float
    answer: Future[float] = field(default_factory=Future)
    """When the engine had answered, or what went wrong."""


class Readiness:
    """Asks an engine in a thread of its own, so that nobody waits for longer than allowed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._last: Question | None = None

    def check(self) -> None:
        """Raise `EngineError` unless the engine answers, or has just answered."""
        question = self._question()
        try:
            question.answer.result(max(0.0, question.begun + LONGEST_SECONDS - time.monotonic()))
        except TimeoutError as error:
            raise EngineError(f"it has not answered a black picture within {LONGEST_SECONDS:g} s") from error

    def _question(self) -> Question:
        with self._lock:
            if self._last is None or _is_old(self._last):
                question = Question(time.monotonic())
                threading.Thread(target=self._ask, args=(question,), name="readiness", daemon=True).start()
                self._last = question  # only now: one that no thread could be started for is never answered
            return self._last

    def _ask(self, question: Question) -> None:
        contract = self._engine.bundle.preprocessing
        try:
            self._engine.predict(np.zeros((1, contract.height, contract.width, 3), np.uint8))
        except Exception as error:  # whatever it is, it is told to those who wait
            question.answer.set_exception(error)
        else:
            question.answer.set_result(time.monotonic())


def register(app: Flask, engine: Engine) -> None:
    """Let the views of `app` ask whether `engine` is ready."""
    app.extensions["darkroom.readiness"] = Readiness(engine)


def readiness() -> Readiness:
    """The readiness of the application that handles the current request."""
    return cast(Readiness, current_app.extensions["darkroom.readiness"])


def _is_old(question: Question) -> bool:
    """Whether it has been answered, and too long ago; one that is not answered yet is waited for."""
    answer = question.answer
    if not answer.done():
        return False
    answered = question.begun if answer.exception() is not None else answer.result()
    return time.monotonic() - answered > FRESH_SECONDS
