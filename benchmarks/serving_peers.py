"""What benchmarks/served_speed.py measures darkroom's server against; each takes the field `files` of a multipart POST.

    python benchmarks/serving_peers.py {torch,pillow,litserve,bentoml} MODEL PORT

`torch` is darkroom's own page in Flask's threaded server with PyTorch in eager mode, of a run folder. The others serve
the ONNX file of a bundle, with one thread a session and two workers, and prepare pictures with Pillow: full decoding,
the part in the middle, one resizing. They import nothing of darkroom, so that they run in an environment of their own.
"""

import io
import json
import os
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

WORKERS = int(os.environ.get("WORKERS", "2"))
MODEL = "DARKROOM_PEER_BUNDLE"
LITSERVE = "DARKROOM_PEER_LITSERVE"
"""Where workers that are other processes find the bundle."""


class Classifier:
    """A session of the bundle's graph, and the preprocessing that its contract asks of Pillow."""

    def __init__(self, bundle: Path) -> None:
        info = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
        contract = info["preprocessing"]
        self.classes = info["classes"]
        self.size = (contract["width"], contract["height"])
        self.filter = Image.Resampling[contract["interpolation"].upper()]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(bundle / "model.onnx", options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name
        names = [output.name for output in self.session.get_outputs()]
        self.output = "probabilities" if "probabilities" in names else names[-1]

    def answer(self, content: bytes | io.IOBase) -> dict[str, float]:
        """Probabilities by class."""
        source = io.BytesIO(content) if isinstance(content, bytes) else content
        image = Image.open(source).convert("RGB")  # type: ignore[arg-type]
        return self.answer_image(image)

    def answer_image(self, image: Image.Image) -> dict[str, float]:
        """Probabilities by class."""
        image = image.convert("RGB")
        scale = min(image.width / self.size[0], image.height / self.size[1])
        width, height = self.size[0] * scale, self.size[1] * scale
        left, top = (image.width - width) / 2, (image.height - height) / 2
        resized = image.resize(self.size, self.filter, box=(left, top, left + width, top + height))
        pixels = np.asarray(resized, np.uint8)[None]
        (probabilities,) = self.session.run([self.output], {self.input: pixels})
        return dict(zip(self.classes, probabilities[0].tolist(), strict=True))


def serve_torch(run: Path, port: int) -> None:
    """The same page and interface, asked as most tutorials would: Flask's own server, PyTorch, a thread a request."""
    import torch

    from darkroom.bundle import Bundle
    from darkroom.config import ServeConfig
    from darkroom.engines.base import Answers, Engine
    from darkroom.export.onnx_bundle import deployed_network
    from darkroom.runs import Run
    from darkroom.web import create_app

    network = deployed_network(Run(run)).eval()

    class TorchEngine(Engine):
        """PyTorch in eager mode."""

        def run(self, pixels: Any) -> Answers:
            """Logits and probabilities of pixels (N, H, W, 3)."""
            with torch.inference_mode():
                logits, probabilities = network(torch.from_numpy(np.ascontiguousarray(pixels)))
            return Answers(logits.numpy(), probabilities.numpy())

        def close(self) -> None:
            """Nothing to let go of."""

    settings = ServeConfig(port=port, access_log=False)
    create_app(TorchEngine(Bundle.open(Run(run).bundle).info), settings).run(port=port, threaded=True)


def serve_pillow(bundle: Path, port: int) -> None:
    """Flask and waitress with as many threads as darkroom's."""
    import waitress
    from flask import Flask, jsonify, request

    classifier, app = Classifier(bundle), Flask(__name__)

    @app.post("/predict")
    def predict() -> Any:
        return jsonify(classifier.answer(request.files["files"].read()))

    waitress.serve(app, port=port, threads=4, _quiet=True)


def serve_litserve(bundle: Path, port: int) -> None:
    """LitServe as its documentation sets it up for uploads; its workers import `Api` from this file."""
    os.environ[LITSERVE] = str(bundle)
    here = Path(__file__)
    program = (
        f"import sys; sys.path.insert(0, {str(here.parent)!r}); import {here.stem} as peers; peers.run_litserve({port})"
    )
    os.execv(sys.executable, [sys.executable, "-c", program])  # noqa: S606


def serve_bentoml(bundle: Path, port: int) -> None:
    """BentoML with its own command; it imports `Service` from this file."""
    os.environ[MODEL] = str(bundle)
    here = Path(__file__)
    words = ["-m", "bentoml", "serve", f"{here.stem}:Service", "--port", str(port), "--host", "127.0.0.1"]
    os.execv(sys.executable, [sys.executable, *words, "--working-dir", str(here.parent)])  # noqa: S606


if LITSERVE in os.environ:
    import litserve
    from fastapi import Request

    class Api(litserve.LitAPI):
        """One picture a request."""

        def setup(self, device: str) -> None:
            self.classifier = Classifier(Path(os.environ[LITSERVE]))

        def decode_request(self, request: Request) -> bytes:
            content: bytes = request["files"].file.read()  # type: ignore[index]
            return content

        def predict(self, content: bytes) -> dict[str, float]:
            return self.classifier.answer(content)

        def encode_response(self, answer: dict[str, float]) -> dict[str, float]:
            return answer

    def run_litserve(port: int) -> None:
        """Listen."""
        server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device=WORKERS)
        server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning", num_api_servers=1)


if MODEL in os.environ:
    import bentoml

    @bentoml.service(workers=WORKERS)
    class Service:
        """One picture a request."""

        @cached_property
        def classifier(self) -> Classifier:
            return Classifier(Path(os.environ[MODEL]))

        @bentoml.api
        def predict(self, files: Image.Image) -> dict[str, float]:
            return self.classifier.answer_image(files)


PEERS = {"torch": serve_torch, "pillow": serve_pillow, "litserve": serve_litserve, "bentoml": serve_bentoml}

if __name__ == "__main__":
    PEERS[sys.argv[1]](Path(sys.argv[2]).resolve(), int(sys.argv[3]))
