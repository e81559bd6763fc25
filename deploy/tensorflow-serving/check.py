"""Ask a real TensorFlow Serving what the tests ask their double, by its address.

    python check.py MODEL URL... [--name NAME] [--version V] [--label L] [--batch B] [--json]

MODEL is a run, a bundle, or a shipped model's name; URL is grpc://HOST:8500 or http://HOST:8501, and each one that is
given goes through all questions. What the server says is compared with ONNX Runtime's answers from the same bundle.
Ends with 0 when all is well, else with 1. Needs darkroom with the extras serve and tf-client.
"""

import argparse
import base64
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from darkroom.bundle import Bundle
from darkroom.config import EngineConfig
from darkroom.engines.base import Answers
from darkroom.engines.onnx_runtime import OnnxRuntimeEngine
from darkroom.engines.tf_serving import TfServingEngine, connect
from darkroom.engines.tf_serving_transport import AVAILABLE, Asked, GoneError, TooSlowError
from darkroom.errors import DarkroomError, EngineError
from darkroom.workflow import bundle_of

TOLERANCE = 1e-4
"""Largest difference in probability between the server and ONNX Runtime."""

FILES_TOLERANCE = 0.05
"""The same where the server prepares the files itself, which it does not do to the bit."""


@dataclass(frozen=True)
class Question:
    """A server and what is known of the model."""

    bundle: Bundle
    settings: EngineConfig
    local: OnnxRuntimeEngine
    remote: TfServingEngine

    @property
    def name(self) -> str:
        """The model's name on the server."""
        return self.settings.tf_serving_model or self.bundle.info.serving_name

    def pixels(self, count: int, seed: int = 0) -> np.ndarray:
        """Golden pictures first, then noise (count, H, W, 3)."""
        golden = self.bundle.golden.pixels
        noise = np.random.default_rng(seed).integers(0, 256, (count, *golden.shape[1:]), np.uint8)
        return np.concatenate([golden, noise])[:count]


def status(asked: Question) -> str:
    """The model-status call names a version that is available."""
    available = [one.version for one in asked.remote.status() if one.state == AVAILABLE]
    require(bool(available), "no version is available")
    return f"versions {', '.join(map(str, available))}"


def batches(asked: Question) -> str:
    """Batches of 1, 3 and 17 pictures, and more than one request holds, are answered as by ONNX Runtime."""
    worst = max(
        difference(asked.remote.answer(pixels), asked.local.answer(pixels))
        for pixels in (asked.pixels(count, count) for count in (1, 3, 17, asked.remote.rows + 5))
    )
    require(worst <= TOLERANCE, f"probabilities differ by {worst:.2g}")
    return f"largest difference {worst:.2g}"


def together(asked: Question) -> str:
    """64 requests from 16 threads are not mixed up, however the server batches them."""
    parts = [asked.pixels(1 + seed % 4, 100 + seed) for seed in range(64)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(asked.remote.answer, parts))
    worst = max(difference(one, asked.local.answer(pixels)) for one, pixels in zip(answers, parts, strict=True))
    require(worst <= TOLERANCE, f"probabilities differ by {worst:.2g}")
    return f"largest difference {worst:.2g}"


def unknown_model(asked: Question) -> str:
    """A model that is not there is told as such."""
    with closing(connect(asked.settings.tf_serving_url)) as transport:
        try:
            transport.predict(Asked(f"{asked.name}-not-there"), asked.pixels(1), 10)
        except GoneError as error:
            return str(error)
    raise EngineError("it was answered")


def unknown_version(asked: Question) -> str:
    """So is a version."""
    with closing(connect(asked.settings.tf_serving_url)) as transport:
        try:
            transport.predict(Asked(asked.name, 2**40), asked.pixels(1), 10)
        except GoneError as error:
            return str(error)
    raise EngineError("it was answered")


def wrong_shape(asked: Question) -> str:
    """Pixels of another size are refused, and the server goes on."""
    with closing(connect(asked.settings.tf_serving_url)) as transport:
        try:
            transport.predict(Asked(asked.name), asked.pixels(1)[:, :-1], 10)
        except (GoneError, TooSlowError):
            raise
        except EngineError as error:
            batches(asked)
            return str(error)
    raise EngineError("they were answered")


def deadline(asked: Question) -> str:
    """A deadline that nobody can keep is told as such."""
    moment = 1e-6 if asked.settings.tf_serving_url.startswith("http") else -1.0  # gRPC rounds short ones up
    with closing(connect(asked.settings.tf_serving_url)) as transport:
        try:
            transport.predict(Asked(asked.name), asked.pixels(asked.remote.rows), moment)
        except TooSlowError as error:
            return str(error)
    raise EngineError("it was answered in time")


def files(asked: Question) -> str:
    """The signature for files answers the golden pictures, over REST, where the export offers it."""
    if not asked.settings.tf_serving_url.startswith("http"):
        return "left to REST"
    golden = asked.bundle.golden
    body = {
        "signature_name": "encoded",
        "instances": [{"b64": base64.b64encode(content).decode()} for content in golden.encoded],
    }
    url = f"{asked.settings.tf_serving_url.rstrip('/')}/v1/models/{asked.name}:predict"
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310  (http by the check above)
            rows = json.load(response)["predictions"]
    except urllib.error.HTTPError as error:
        with error:
            said = error.read().decode(errors="replace")
        require("signature" in said.lower(), f"{error.code}: {said[:300]}")
        return f"not offered by this export ({said[:200].strip()})"
    worst = float(np.abs(np.array([row["probabilities"] for row in rows]) - golden.probabilities).max())
    require(worst <= FILES_TOLERANCE, f"probabilities differ by {worst:.2g}")
    return f"largest difference {worst:.2g}"


QUESTIONS: tuple[Callable[[Question], str], ...] = (
    status,
    batches,
    together,
    unknown_model,
    unknown_version,
    wrong_shape,
    deadline,
    files,
)


def require(condition: bool, what: str) -> None:
    """Raise `EngineError` unless `condition` holds."""
    if not condition:
        raise EngineError(what)


def difference(left: Answers, right: Answers) -> float:
    """Largest difference in probability."""
    return float(np.abs(left.probabilities - right.probabilities).max())


def check(folder: Path, settings: EngineConfig) -> list[dict[str, object]]:
    """What came of each question; the golden pictures are the first, on opening."""
    results: list[dict[str, object]] = []
    with OnnxRuntimeEngine.open(folder) as local:
        try:
            remote = TfServingEngine.open(folder, settings)
        except DarkroomError as error:
            return [{"question": "golden pictures", "passed": False, "said": str(error)}]
        results.append({"question": "golden pictures", "passed": True, "said": "answered as the network did"})
        with remote:
            question = Question(Bundle.open(folder), settings, local, remote)
            for ask in QUESTIONS:
                try:
                    results.append({"question": ask.__name__, "passed": True, "said": ask(question)})
                except DarkroomError as error:
                    results.append({"question": ask.__name__, "passed": False, "said": str(error)})
    return results


def main() -> int:
    """Ask every server; 0 when all is well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("urls", nargs="+", metavar="url")
    parser.add_argument("--name", default="")
    parser.add_argument("--version", type=int)
    parser.add_argument("--label", default="")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--json", action="store_true", dest="as_json")
    given = parser.parse_args()
    try:
        folder = bundle_of(given.model)
        results = {
            url: check(
                folder,
                EngineConfig(
                    engine="tf-serving",
                    tf_serving_url=url,
                    tf_serving_model=given.name,
                    tf_serving_version=given.version,
                    tf_serving_label=given.label,
                    tf_serving_batch=given.batch,
                ),
            )
            for url in given.urls
        }
    except DarkroomError as error:
        sys.exit(f"check: {error}")
    if given.as_json:
        print(json.dumps(results, indent=2, ensure_ascii=False))
    else:
        for url, answers in results.items():
            print(url)
            for one in answers:
                print(f"  {'ok    ' if one['passed'] else 'FAILED'} {one['question']}: {one['said']}")
    return 0 if all(one["passed"] for answers in results.values() for one in answers) else 1


if __name__ == "__main__":
    sys.exit(main())
