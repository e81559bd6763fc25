"""TensorFlow Serving over gRPC: pixels travel as they lie in memory."""

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from darkroom.engines import tf_serving_messages as messages
from darkroom.engines.base import Answers
from darkroom.engines.tf_serving_transport import (
    INPUT,
    MOST_BYTES,
    SIGNATURE,
    Asked,
    GoneError,
    TooSlowError,
    Transport,
    UnavailableError,
    VersionStatus,
    one_line,
)
from darkroom.errors import EngineError

PREDICT = "/tensorflow.serving.PredictionService/Predict"
GET_STATUS = "/tensorflow.serving.ModelService/GetModelStatus"

OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", MOST_BYTES),
    ("grpc.enable_retries", 0),  # the engine does that, within its deadline
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
)


class GrpcTransport(Transport):
    """A channel to HOST:PORT, with TLS where `secure`."""

    def __init__(self, address: str, *, secure: bool = False) -> None:
        self._address = address
        if secure:
            self._channel: Any = grpc.secure_channel(address, grpc.ssl_channel_credentials(), OPTIONS)
        else:
            self._channel = grpc.insecure_channel(address, OPTIONS)
        self._predict = self._call(PREDICT, messages.PredictRequest, messages.PredictResponse)
        self._status = self._call(GET_STATUS, messages.GetModelStatusRequest, messages.GetModelStatusResponse)

    def predict(self, asked: Asked, pixels: npt.NDArray[np.uint8], seconds: float) -> tuple[Answers, int | None]:
        """Answers for pixels (N, H, W, 3), and the version that gave them."""
        request = messages.predict_request(SIGNATURE, INPUT, messages.pixels_tensor(pixels), model=asked.name)
        if asked.version is not None:
            request.model_spec.version.value = asked.version
        elif asked.label:
            request.model_spec.version_label = asked.label
        response = self._ask(self._predict, request, seconds)
        missing = [name for name in Answers._fields if name not in response.outputs]
        if missing:
            raise EngineError(f"{asked} at {self._address} gives no {missing[0]}: export it with darkroom")
        answers = Answers(*(messages.floats_of(response.outputs[name]) for name in Answers._fields))
        spec = response.model_spec
        return answers, int(spec.version.value) if spec.HasField("version") else None

    def status(self, name: str, seconds: float) -> list[VersionStatus]:
        """All versions of a model that the server knows of."""
        request = messages.GetModelStatusRequest()
        request.model_spec.name = name
        response = self._ask(self._status, request, seconds)
        return [
            VersionStatus(int(one.version), messages.STATES.get(one.state, "UNKNOWN"), one.status.error_message)
            for one in response.model_version_status
        ]

    def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        self._channel.close()

    def _call(self, method: str, request: Any, response: Any) -> Callable[..., Any]:
        call: Callable[..., Any] = self._channel.unary_unary(
            method, request_serializer=request.SerializeToString, response_deserializer=response.FromString
        )
        return call

    def _ask(self, call: Callable[..., Any], request: Any, seconds: float) -> Any:
        try:
            return call(request, timeout=seconds)
        except grpc.RpcError as error:
            raise self._translated(error, seconds) from error
        except ValueError as error:  # so grpc tells that the channel was closed
            raise EngineError("the engine is closed: open it again") from error

    def _translated(self, error: Any, seconds: float) -> EngineError:
        code, details = error.code(), one_line(error.details())
        if code is grpc.StatusCode.UNAVAILABLE:
            return UnavailableError(f"TensorFlow Serving at {self._address} is not available ({details})")
        if code is grpc.StatusCode.NOT_FOUND:
            return GoneError(f"TensorFlow Serving at {self._address} does not have what was asked for ({details})")
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return TooSlowError(f"TensorFlow Serving at {self._address} did not answer within {seconds:.1f} seconds")
        return EngineError(f"TensorFlow Serving at {self._address} cannot answer: {code.name}: {details}")
