"""TensorFlow Serving over REST: numbers travel as JSON, for where only HTTP gets through."""

import http.client
import json
import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import numpy.typing as npt

from darkroom.engines.base import Answers
from darkroom.engines.tf_serving_transport import (
    INPUT,
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


class RestTransport(Transport):
    """Requests to a URL, with a path in front where a proxy adds one; each on a connection of its own."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._url = url
        self._host, self._port = parts.hostname or "", parts.port
        self._path = parts.path.rstrip("/")
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._closed = False

    def predict(self, asked: Asked, pixels: npt.NDArray[np.uint8], seconds: float) -> tuple[Answers, int | None]:
        """Answers for pixels (N, H, W, 3); which version gave them, this protocol does not tell."""
        body = json.dumps({"signature_name": SIGNATURE, "inputs": {INPUT: pixels.tolist()}})
        content = self._ask("POST", f"{_place(asked)}:predict", body, seconds)
        try:
            outputs = content["outputs"]
            return Answers(*(np.array(outputs[name], np.float32) for name in Answers._fields)), None
        except (KeyError, TypeError, ValueError) as error:
            raise EngineError(f"{asked} at {self._url} gives no {error}: export it with darkroom") from error

    def status(self, name: str, seconds: float) -> list[VersionStatus]:
        """All versions of a model that the server knows of."""
        content = self._ask("GET", _place(Asked(name)), None, seconds)
        try:
            return [
                VersionStatus(int(one["version"]), str(one["state"]), one.get("status", {}).get("error_message", ""))
                for one in content["model_version_status"]
            ]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EngineError(f"{self._url} tells no status of {name}, as TensorFlow Serving would") from error

    def close(self) -> None:
        """Take no further requests."""
        self._closed = True

    def _ask(self, method: str, place: str, body: str | None, seconds: float) -> Mapping[str, Any]:
        """One exchange; its deadline holds for each wait on the network and is looked at between them."""
        if self._closed:
            raise EngineError("the engine is closed: open it again")
        end = time.monotonic() + seconds
        try:
            with closing(self._kind(self._host, self._port, timeout=max(seconds, 0.001))) as connection:
                headers = {"Content-Type": "application/json"} if body is not None else {}
                connection.request(method, f"{self._path}{place}", body, headers)
                self._leave(connection, end)
                response = connection.getresponse()
                self._leave(connection, end)
                status, answer = response.status, response.read()
        except TimeoutError as error:
            raise TooSlowError(
                f"TensorFlow Serving at {self._url} did not answer within {seconds:.1f} seconds"
            ) from error
        except (OSError, http.client.HTTPException) as error:  # refused, reset, or hung up in the middle
            what = one_line(error) or type(error).__name__
            raise UnavailableError(f"TensorFlow Serving at {self._url} is not available ({what})") from error
        return self._content(status, answer)

    @staticmethod
    def _leave(connection: http.client.HTTPConnection, end: float) -> None:
        """Leave the next wait only what is left of the time."""
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if connection.sock is not None:
            connection.sock.settimeout(left)

    def _content(self, status: int, answer: bytes) -> Mapping[str, Any]:
        try:
            content = json.loads(answer)
        except ValueError:
            content = {"error": answer.decode(errors="replace")}
        if status == http.client.OK and isinstance(content, dict):
            return content
        what = one_line(content.get("error", content) if isinstance(content, dict) else content)
        if status == http.client.SERVICE_UNAVAILABLE:
            raise UnavailableError(f"TensorFlow Serving at {self._url} is not available ({what})")
        if status == http.client.NOT_FOUND:
            raise GoneError(f"TensorFlow Serving at {self._url} does not have what was asked for ({what})")
        if status == http.client.GATEWAY_TIMEOUT:
            raise TooSlowError(f"TensorFlow Serving at {self._url} took too long ({what})")
        raise EngineError(f"TensorFlow Serving at {self._url} cannot answer: {status}: {what}")


def _place(asked: Asked) -> str:
    if asked.version is not None:
        return f"/v1/models/{quote(asked.name)}/versions/{asked.version}"
    return f"/v1/models/{quote(asked.name)}" + (f"/labels/{quote(asked.label, safe='')}" if asked.label else "")
