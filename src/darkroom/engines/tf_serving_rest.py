"""TensorFlow Serving over REST: numbers travel as JSON, for where only HTTP gets through."""

import functools
import http.client
import io
import json
import socket
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
        """One exchange, over after `seconds` however the answer drips."""
        if self._closed:
            raise EngineError("the engine is closed: open it again")
        end = time.monotonic() + seconds
        try:
            with closing(self._kind(self._host, self._port, timeout=max(seconds, 0.001))) as connection:
                connection.response_class = functools.partial(_Response, end=end)  # type: ignore[assignment]
                connection.connect()
                connection.sock.settimeout(_left(end))
                headers = {"Content-Type": "application/json"} if body is not None else {}
                connection.request(method, f"{self._path}{place}", body, headers)
                with connection.getresponse() as response:
                    status, answer = response.status, self._body(response)
        except TimeoutError as error:
            raise TooSlowError(
                f"TensorFlow Serving at {self._url} did not answer within {seconds:.1f} seconds"
            ) from error
        except (OSError, http.client.HTTPException) as error:  # refused, reset, or hung up in the middle
            what = one_line(error) or type(error).__name__
            raise UnavailableError(f"TensorFlow Serving at {self._url} is not available ({what})") from error
        return self._content(status, answer)

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        told = response.length  # None where it comes in chunks, or ends with the connection
        answer = response.read(MOST_BYTES + 1) if told is None else b"" if told > MOST_BYTES else response.read()
        if max(told or 0, len(answer)) > MOST_BYTES:
            raise EngineError(f"TensorFlow Serving at {self._url} answers more than {MOST_BYTES:,} bytes")
        return answer

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


class _Response(http.client.HTTPResponse):
    """An answer whose head and body come in time, or raise `TimeoutError`."""

    def __init__(self, sock: socket.socket, *, end: float, **given: Any) -> None:
        super().__init__(sock, **given)
        self.fp.close()
        self.fp = io.BufferedReader(_Until(sock, end))


class _Until(io.RawIOBase):
    """What a socket receives, up to a moment; its own timeout would begin anew with every byte."""

    def __init__(self, sock: socket.socket, end: float) -> None:
        self._sock, self._end = sock, end
        self._received = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_left(self._end))
        return self._received.readinto(buffer)

    def close(self) -> None:
        self._received.close()
        super().close()


def _left(end: float) -> float:
    """Seconds that are left; raises `TimeoutError` where there are none."""
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _place(asked: Asked) -> str:
    if asked.version is not None:
        return f"/v1/models/{quote(asked.name)}/versions/{asked.version}"
    return f"/v1/models/{quote(asked.name)}" + (f"/labels/{quote(asked.label, safe='')}" if asked.label else "")
