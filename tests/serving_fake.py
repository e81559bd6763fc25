"""A double of TensorFlow Serving: its gRPC and REST faces over a SavedModel or a formula, with switches for trouble.

Where tensorflow-serving-api is installed, the gRPC face speaks with its messages, else with darkroom's own.
"""

import base64
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np

import bundles

Outputs = Mapping[str, np.ndarray]
Model = Callable[[str, str, Any], Outputs]
"""Signature, name of the input and its value (an array, or a list of bytes) -> outputs."""

STATES = {"START": 10, "LOADING": 20, "AVAILABLE": 30, "UNLOADING": 40, "END": 50}
HTTP_CODES = {"NOT_FOUND": 404, "UNAVAILABLE": 503, "INVALID_ARGUMENT": 400, "RESOURCE_EXHAUSTED": 429}
PLACE = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?(:predict)?")


class RefusedError(Exception):
    """What the server says instead of an answer: a gRPC code and a sentence."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class FakeServing:
    """The models of one name by version, and what is wrong with the server."""

    versions: dict[int, Model]
    name: str = "colours"
    states: dict[int, str] = field(default_factory=dict)
    """Of versions that are not AVAILABLE."""
    errors: dict[int, str] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    delay: float = 0.0
    """Seconds before each prediction."""
    refusals: list[tuple[str, str]] = field(default_factory=list)
    """Code and message for each of the next predictions."""
    dropped: int = 0
    """So many next REST requests are cut off in the middle of the answer."""
    claimed: int | None = None
    """The version that the server says has answered."""
    as_content: bool = False
    """Whether numbers are written as bytes, as `--enable_serialization_as_tensor_content` has it."""
    asked: list[tuple[int, int]] = field(default_factory=list)
    """Version and number of pictures of every prediction that was begun."""
    closing: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def version(self, name: str, number: int | None, label: str) -> int:
        """The version that is meant, which may not be available."""
        if name != self.name:
            raise RefusedError("NOT_FOUND", f"Servable not found for request: Latest({name})")
        if label and label not in self.labels:
            raise RefusedError("INVALID_ARGUMENT", f"Unrecognized servable version label: {label}")
        found = self.labels[label] if label else number
        available = [version for version in self.versions if self.states.get(version, "AVAILABLE") == "AVAILABLE"]
        if found is None and available:
            return max(available)
        if found not in available:
            raise RefusedError("NOT_FOUND", f"Servable not found for request: Specific({name}, {found})")
        return found

    def predict(self, version: int, signature: str, name: str, value: Any) -> tuple[Outputs, int]:
        """Outputs, and the version that the server says they come from."""
        with self.lock:
            self.asked.append((version, len(value)))
            refusal = self.refusals.pop(0) if self.refusals else None
        self.closing.wait(self.delay)
        if refusal is not None:
            raise RefusedError(*refusal)
        return self.versions[version](signature, name, value), self.claimed if self.claimed is not None else version

    def status(self, name: str) -> list[tuple[int, str, str]]:
        """Version, state and error of all versions."""
        if name != self.name:
            raise RefusedError("NOT_FOUND", f"Could not find any versions of model {name}")
        return [(v, self.states.get(v, "AVAILABLE"), self.errors.get(v, "")) for v in sorted(self.versions)]


def colours(*, temperature: float = bundles.TEMPERATURE) -> Model:
    """The network of the small bundles, by its formula."""

    def answer(signature: str, name: str, value: Any) -> Outputs:
        if signature not in ("", "serving_default") or name not in ("", "pixels"):
            raise RefusedError("INVALID_ARGUMENT", f"Serving signature key {signature!r} or input {name!r} not found.")
        pixels = np.asarray(value)
        if pixels.shape[1:] != (bundles.CONTRACT.height, bundles.CONTRACT.width, 3):
            raise RefusedError("INVALID_ARGUMENT", f"Incompatible shapes: {pixels.shape}")
        logits = bundles.expected_logits(pixels)
        powers = np.exp(logits / temperature)
        return {"logits": logits, "probabilities": powers / powers.sum(axis=1, keepdims=True)}

    return answer


def saved_model(folder: Path) -> Model:
    """What TensorFlow answers from a SavedModel."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder))

    def answer(signature: str, name: str, value: Any) -> Outputs:
        try:
            function = loaded.signatures[signature or "serving_default"]
            (only,) = function.structured_input_signature[1]
            outputs = function(**{name or only: tf.constant(value)})
        except (KeyError, TypeError, ValueError, tf.errors.OpError) as error:
            raise RefusedError("INVALID_ARGUMENT", " ".join(str(error).split())) from error
        return {name: values.numpy() for name, values in outputs.items()}

    return answer


# gRPC ----------------------------------------------------------------------------------------------------------------


def protocol() -> SimpleNamespace:
    """The four messages: TensorFlow Serving's own where they are installed."""
    try:
        from tensorflow_serving.apis import get_model_status_pb2, predict_pb2
    except ImportError:
        from darkroom.engines import tf_serving_messages as predict_pb2

        get_model_status_pb2 = predict_pb2
    return SimpleNamespace(
        PredictRequest=predict_pb2.PredictRequest,
        PredictResponse=predict_pb2.PredictResponse,
        GetModelStatusRequest=get_model_status_pb2.GetModelStatusRequest,
        GetModelStatusResponse=get_model_status_pb2.GetModelStatusResponse,
    )


@contextmanager
def grpc_face(fake: FakeServing) -> Iterator[str]:
    """The URL of a gRPC server for it."""
    messages = protocol()

    def predict(request: Any, context: Any) -> Any:
        try:
            spec = request.model_spec
            number = spec.version.value if spec.HasField("version") else None
            version = fake.version(spec.name, number, spec.version_label)
            ((name, tensor),) = request.inputs.items()
            outputs, claimed = fake.predict(version, spec.signature_name, name, _value(tensor))
        except RefusedError as error:
            context.abort(getattr(grpc.StatusCode, error.code), str(error))
        return _response(messages, outputs, claimed, as_content=fake.as_content)

    def status(request: Any, context: Any) -> Any:
        response = messages.GetModelStatusResponse()
        try:
            for version, state, error in fake.status(request.model_spec.name):
                one = response.model_version_status.add(version=version, state=STATES[state])
                one.status.error_message = error
        except RefusedError as refused:
            context.abort(getattr(grpc.StatusCode, refused.code), str(refused))
        return response

    services = {
        "tensorflow.serving.PredictionService": {
            "Predict": _handler(predict, messages.PredictRequest, messages.PredictResponse)
        },
        "tensorflow.serving.ModelService": {
            "GetModelStatus": _handler(status, messages.GetModelStatusRequest, messages.GetModelStatusResponse)
        },
    }
    with ThreadPoolExecutor(16) as pool:
        server = grpc.server(pool, options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers(
            tuple(grpc.method_handlers_generic_handler(name, methods) for name, methods in services.items())
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"grpc://127.0.0.1:{port}"
        finally:
            fake.closing.set()
            server.stop(None).wait()


def _handler(function: Callable[..., Any], request: Any, response: Any) -> Any:
    return grpc.unary_unary_rpc_method_handler(
        function, request_deserializer=request.FromString, response_serializer=response.SerializeToString
    )


def _value(tensor: Any) -> Any:
    shape = [dimension.size for dimension in tensor.tensor_shape.dim]
    if tensor.dtype == 7:
        return list(tensor.string_val)
    if tensor.dtype != 4:
        raise RefusedError("INVALID_ARGUMENT", f"Expects arg to be uint8 but {tensor.dtype} is provided")
    return np.frombuffer(tensor.tensor_content, np.uint8).reshape(shape)


def _response(messages: Any, outputs: Outputs, version: int, *, as_content: bool) -> Any:
    response = messages.PredictResponse()
    for name, values in outputs.items():
        tensor = response.outputs[name]
        tensor.dtype = 1
        for size in values.shape:
            tensor.tensor_shape.dim.add(size=size)
        if as_content:
            tensor.tensor_content = values.astype("<f4").tobytes()
        else:
            tensor.float_val.extend(values.astype(np.float32).ravel().tolist())
    response.model_spec.name = "whatever"
    response.model_spec.version.value = version
    return response


# REST ----------------------------------------------------------------------------------------------------------------


@contextmanager
def rest_face(fake: FakeServing) -> Iterator[str]:
    """The URL of an HTTP server for it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.exchange(None)

        def do_POST(self) -> None:
            self.exchange(self.rfile.read(int(self.headers["Content-Length"])))

        def exchange(self, body: bytes | None) -> None:
            with suppress(ConnectionError):  # the client has given up
                try:
                    self.answer(200, _rest(fake, self.path, body))
                except RefusedError as error:
                    self.answer(HTTP_CODES[error.code], {"error": str(error)})

        def answer(self, status: int, content: Any) -> None:
            payload = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            with fake.lock:
                cut = fake.dropped > 0
                fake.dropped -= cut
            self.wfile.write(payload[: len(payload) // 2] if cut else payload)

        def log_message(self, *_: Any) -> None:
            """Be silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            fake.closing.set()
            server.shutdown()
            thread.join()


def _rest(fake: FakeServing, path: str, body: bytes | None) -> Any:
    found = PLACE.fullmatch(path)
    if found is None or (found[4] is None) != (body is None):
        raise RefusedError("INVALID_ARGUMENT", f"Malformed request: {path}")
    if body is None:
        statuses = [
            {"version": str(version), "state": state, "status": {"error_code": "OK", "error_message": error}}
            for version, state, error in fake.status(found[1])
        ]
        return {"model_version_status": statuses}
    version = fake.version(found[1], int(found[2]) if found[2] else None, found[3] or "")
    content = json.loads(body)
    inputs = content.get("inputs", content.get("instances"))
    ((name, value),) = inputs.items() if isinstance(inputs, dict) else [("", inputs)]  # the only one
    first = value[0] if value else None
    if isinstance(first, dict):
        decoded: Any = [base64.b64decode(one["b64"]) for one in value]
    else:
        decoded = np.array(value, np.uint8)
    outputs, _ = fake.predict(version, content.get("signature_name", ""), name, decoded)
    lists = {name: values.tolist() for name, values in outputs.items()}
    if "inputs" in content:
        return {"outputs": lists}
    return {"predictions": [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]}


FACES = {"grpc": grpc_face, "http": rest_face}


# A server that can be killed -----------------------------------------------------------------------------------------


def _dies(after: int) -> Model:
    """The colours, by a program that is gone in the middle of a prediction."""
    formula, done = colours(), []

    def answer(signature: str, name: str, value: Any) -> Outputs:
        if len(done) == after:
            os._exit(9)
        done.append(1)
        return formula(signature, name, value)

    return answer


if __name__ == "__main__":  # FACE AFTER: prints its URL, dies when it is asked once more than so often
    with FACES[sys.argv[1]](FakeServing({1: _dies(int(sys.argv[2]))})) as url:
        print(url, flush=True)
        threading.Event().wait(120)
