"""Asking a server of darkroom from a program or the command line; nothing but the standard library is needed for it."""

import http.client
import json
import re
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from email.message import Message
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from darkroom import __version__
from darkroom.engines.novelty import Novelty
from darkroom.engines.prediction import Answer, Failure, Prediction
from darkroom.errors import ServerError, UsageError

FILES_A_REQUEST = 16
ROOM = 4096
"""Bytes that a form needs beside its pictures, for each of them; names are cut off before they fill it."""

TRIES = 6
"""Of a request that a busy server sends away."""

LONGEST_WAIT = 60.0
SECONDS = 120.0
"""Longest wait for an answer."""

Sleep = Callable[[float], None]


class _StayHere(urllib.request.HTTPRedirectHandler):
    """Follows nobody elsewhere: urllib would take the key along, to whatever host an answer names."""

    def redirect_request(self, *_: Any) -> None:
        """Leave the answer an error."""


_OPENER = urllib.request.build_opener(_StayHere)


class Client:
    """A server, and the key that it asks for, if it asks for one."""

    def __init__(self, url: str, *, key: str | None = None, sleep: Sleep = time.sleep) -> None:
        if not _is_address(url):
            raise UsageError(
                f"{_without_secrets(url)!r} is no address of a server: give one such as http://127.0.0.1:8000"
            )
        key = key.strip() if key else key
        if key and not (key.isascii() and key.isprintable()):
            raise UsageError("the API key has characters that no key has: give it as `darkroom key` printed it")
        self._url = url.rstrip("/")
        self._headers = {"User-Agent": f"darkroom/{__version__}", "Accept": "application/json"}
        self._headers |= {"Authorization": f"Bearer {key}"} if key else {}
        self._sleep = sleep

    def model(self) -> dict[str, Any]:
        """What the server says of its model; raises `ServerError`."""
        content = self._ask("GET", "/api/v1/model")
        if not isinstance(content, dict) or "limits" not in content:
            raise ServerError(f"{self._url} says nothing of its limits: is it a server of darkroom?")
        return content

    def predict(self, paths: Sequence[Path], *, top: int | None = None) -> Iterator[Answer]:
        """An answer or an error for each file, in order, in as many requests as the server's limits ask for.

        Raises `ServerError`; a file that cannot be read, or is too large, gets an error of its own.
        """
        limits = self._limits()
        for batch in _batches(paths, limits):
            readable = [(path, content) for path, content in batch if isinstance(content, bytes)]
            answered = iter(self._predict(readable, top=top) if readable else ())
            for path, content in batch:
                yield next(answered) if isinstance(content, bytes) else Failure(str(path), content)

    def _limits(self) -> dict[str, int]:
        limits = self.model()["limits"]
        try:
            return {name: int(limits[name]) for name in ("max_file_bytes", "max_request_bytes", "max_files")}
        except (KeyError, TypeError, ValueError) as error:
            raise self._strange("limits", error) from error

    def _predict(self, files: Sequence[tuple[Path, bytes]], *, top: int | None) -> list[Answer]:
        media_type, body = form(files)
        address = "/api/v1/predict" + ("" if top is None else f"?top={top}")
        content = self._ask("POST", address, body, {"Content-Type": media_type})
        try:
            entries = content["predictions"]
            return [answer_of(str(path), entry) for (path, _), entry in zip(files, entries, strict=True)]
        except (KeyError, TypeError, ValueError) as error:
            raise self._strange("predictions", error) from error

    def _ask(
        self, method: str, address: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        """The JSON of an answer, if need be after some tries, since a server may be busy for a while."""
        for left in range(TRIES - 1, -1, -1):
            try:
                return self._ask_once(method, address, body, headers or {})
            except _BusyError as busy:
                if not left:
                    raise ServerError(f"{self._url} is busy ({busy}): try again later") from busy
                self._sleep(busy.seconds)
        raise AssertionError("the last try returns or raises")

    def _ask_once(self, method: str, address: str, body: bytes | None, headers: Mapping[str, str]) -> Any:
        request = urllib.request.Request(  # noqa: S310  (http and https only, see above)
            self._url + address, body, {**self._headers, **headers}, method=method
        )
        try:
            with _OPENER.open(request, timeout=SECONDS) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", error)).strip() or type(error).__name__
            raise ServerError(f"{self._url} cannot be asked ({reason}): is it a server of darkroom?") from error

    def _refusal(self, error: urllib.error.HTTPError) -> Exception:
        detail = _detail(error)
        if error.code in (429, 503):
            return _BusyError(detail, _seconds(error.headers))
        if "Location" in error.headers:
            detail += (
                f", and sends to {error.headers['Location']}: give that address, if you trust it with the pictures"
            )
        if error.code == HTTPStatus.UNAUTHORIZED and "Authorization" in self._headers:
            detail = "it does not accept this API key"
        elif error.code == HTTPStatus.UNAUTHORIZED:
            detail = "it asks for an API key: give --api-key, or set DARKROOM_API_KEY"
        if error.code == HTTPStatus.NOT_FOUND and urlsplit(self._url).path:
            detail += ": is there a path in the address that does not belong there?"
        trace = error.headers.get("X-Request-Id")
        return ServerError(f"{self._url} answers {error.code}: {detail}" + (f" (request {trace})" if trace else ""))

    def _strange(self, what: str, error: Exception) -> ServerError:
        why = f"no {error}" if isinstance(error, KeyError) else error
        return ServerError(
            f"{self._url} answers with {what} of another form ({why}): is it a darkroom of this version?"
        )


class _BusyError(Exception):
    """The server asks to come back after so many `seconds`."""

    def __init__(self, detail: str, seconds: float) -> None:
        super().__init__(detail)
        self.seconds = seconds


def form(files: Sequence[tuple[Path, bytes]]) -> tuple[str, bytes]:
    """Media type and body of a multipart form with `files`."""
    boundary = secrets.token_hex(16)
    parts = [_head(boundary, path.name) + content + b"\r\n" for path, content in files]
    return f"multipart/form-data; boundary={boundary}", b"".join([*parts, f"--{boundary}--\r\n".encode()])


def answer_of(name: str, entry: Mapping[str, Any]) -> Answer:
    """One entry of the server's `predictions`.

    Raises `KeyError`, `TypeError` or `ValueError` where it is of another form.
    """
    if "error" in entry:
        return Failure(name, entry["error"]["detail"])
    ranked = tuple((str(item["label"]), float(item["probability"])) for item in entry["probabilities"])
    novelty = Novelty(**entry["novelty"]) if "novelty" in entry else None
    return Prediction(name, str(entry["label"]), float(entry["confidence"]), bool(entry["sure"]), ranked, novelty)


def _is_address(url: str) -> bool:
    """Whether it is scheme, host and perhaps a port and a path; a key does not belong there."""
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return whole and parts.username is None and not re.search(r"[?#\s]", url)


def _without_secrets(url: str) -> str:
    """As much of an address as may be shown: what stands before @, or behind ? and #, may be a password or a key."""
    return re.split(r"[?#]", url.rpartition("@")[2])[0]


def _batches(paths: Sequence[Path], limits: Mapping[str, int]) -> Iterator[list[tuple[Path, bytes | str]]]:
    """Files with their contents, or with why there is none, so many at a time as one request may hold."""
    batch: list[tuple[Path, bytes | str]] = []
    size = 0
    for path in paths:
        content = _content(path, min(limits["max_file_bytes"], limits["max_request_bytes"] - ROOM))
        more = len(content) + ROOM if isinstance(content, bytes) else 0
        full = len(batch) >= min(FILES_A_REQUEST, limits["max_files"]) or size + more > limits["max_request_bytes"]
        if batch and full:
            yield batch
            batch, size = [], 0
        batch.append((path, content))
        size += more
    if batch:
        yield batch


def _content(path: Path, most: int) -> bytes | str:
    try:
        if path.stat().st_size > most:
            return f"too large: {path.stat().st_size:,} bytes, where the server takes {most:,}"
        return path.read_bytes()
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"


def _detail(error: urllib.error.HTTPError) -> str:
    """What a problem says, or the status where something else answered."""
    try:
        return str(json.load(error)["detail"])
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException):
        return str(error.reason)


def _seconds(headers: Message) -> float:
    wanted = headers.get("Retry-After", "")
    return min(float(wanted), LONGEST_WAIT) if wanted.isdecimal() else 1.0


def _head(boundary: str, name: str) -> bytes:
    field = f'form-data; name="files"; filename="{_quoted(name)}"'
    return f"--{boundary}\r\nContent-Disposition: {field}\r\n\r\n".encode()


def _quoted(name: str) -> str:
    safe = "".join(character for character in name if character.isprintable())[-200:]
    return safe.replace("\\", "_").replace('"', "%22").encode("utf-8", "replace").decode()
