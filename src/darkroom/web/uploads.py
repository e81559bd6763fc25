"""From a request to pictures: names that are safe to show, and bytes; the application writes none of them to disk."""

import base64
import binascii
import io
import json
import unicodedata
from dataclasses import dataclass
from typing import IO, Any

from flask import Request
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

from darkroom.web.service import Limits, Upload

FIELDS = ("files", "file")
LONGEST_NAME = 120
NAMELESS = "picture"

VALUES_A_PICTURE = 4
"""Braces, brackets and commas that a picture takes in JSON: three, and one more of a file's name."""

SPARE_VALUES = 10_000
"""What else may stand in a body, for names full of commas; as empty objects it makes less than a megabyte."""


@dataclass(frozen=True)
class Extent:
    """How much structure a JSON body may have: most objects, and most values in all."""

    objects: int
    values: int

    def holds(self, body: bytes) -> bool:
        """Whether `body` keeps to it, as its bytes alone tell: what stands in text counts as well."""
        objects = body.count(b"{")
        return objects <= self.objects and objects + body.count(b"[") + body.count(b",") <= self.values


class UploadRequest(Request):
    """A request whose uploads stay in memory, which the limit on its length bounds, instead of in temporary files."""

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        return io.BytesIO()


def read_uploads(request: Request, limits: Limits) -> list[Upload]:
    """Name and bytes of each picture in order; raises werkzeug's 400, 413 or 415 with a sentence for people."""
    kind = request.mimetype
    if kind == "multipart/form-data":
        return read_form(request, limits)
    if kind == "application/json":
        return _from_json(read_json(request, _extent(limits)), limits)
    if kind.startswith("image/") or kind == "application/octet-stream":
        return [(NAMELESS, _body(request))]
    raise UnsupportedMediaType(
        "send the pictures as multipart/form-data, one field named files for each picture, as JSON with a list files "
        "of objects with name and content in base64, or one picture as the body, with its type such as image/jpeg"
    )


def read_form(request: Request, limits: Limits) -> list[Upload]:
    """The pictures of a multipart form; raises werkzeug's 400, 413 or 415 with a sentence for people."""
    if request.mimetype != "multipart/form-data":
        raise UnsupportedMediaType("send the pictures as multipart/form-data, one field named files for each picture")
    try:
        found = [file for field in FIELDS for file in request.files.getlist(field)]
    except RequestEntityTooLarge as error:
        raise RequestEntityTooLarge(f"The request is too large: {limits.in_words()}.") from error
    uploads = [(clean_name(file.filename), content) for file, content in map(_read, found) if content or file.filename]
    _require_number(len(uploads), limits)
    return uploads


def read_json(request: Request, extent: Extent) -> Any:
    """The body as JSON; raises werkzeug's 400 where it is none, or holds NaN or infinities, which JSON has not.

    Raises 413 beyond `extent`, before anything is made of the body: three bytes become an object of 64.
    """
    body = _body(request)
    if not extent.holds(body):
        raise RequestEntityTooLarge(
            "The JSON has more objects, lists and values than the pictures of one request need."
        )
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise BadRequest("The body is no JSON that is read here: it is nested too deeply.") from error
    except ValueError as error:
        raise BadRequest(f"The body is not JSON: {error}.") from error


def decode_base64(text: str, where: str) -> bytes:
    """The bytes of `text`; raises werkzeug's 400, which names `where` the text was."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"{where} is not base64: send the picture's bytes encoded by RFC 4648.") from error


def clean_name(name: str | None) -> str:
    """The last part of an uploaded file's name without control and direction characters, at most 120 characters."""
    last = (name or "").replace("\\", "/").rsplit("/", 1)[-1]
    shown = "".join(character for character in last if unicodedata.category(character)[0] != "C").strip()
    return _shortened(shown) or NAMELESS


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 13]}…{name[-12:]}"


def _extent(limits: Limits) -> Extent:
    values = VALUES_A_PICTURE * limits.files + SPARE_VALUES
    return Extent(values, values)


def _from_json(content: Any, limits: Limits) -> list[Upload]:
    entries = content.get("files") if isinstance(content, dict) else None
    if not isinstance(entries, list) or set(content) != {"files"}:
        raise BadRequest("The JSON must be an object with a list files of objects with name and content, nothing else.")
    _require_number(len(entries), limits)
    return [_from_entry(entry, f"files[{place}]") for place, entry in enumerate(entries)]


def _from_entry(entry: Any, where: str) -> Upload:
    whole = isinstance(entry, dict) and "content" in entry and set(entry) <= {"name", "content"}
    if not whole or not all(isinstance(value, str) for value in entry.values()):
        raise BadRequest(f"{where} must be an object with content, and a name if it has one, both of them text.")
    return clean_name(entry.get("name")), decode_base64(entry["content"], f"{where}.content")


def _require_number(number: int, limits: Limits) -> None:
    if not number:
        raise BadRequest("There is no picture in the request: add at least one in a field named files.")
    if number > limits.files:
        raise RequestEntityTooLarge(f"There are {number} pictures in the request: {limits.in_words()}.")


def _read(file: FileStorage) -> tuple[FileStorage, bytes]:
    with file.stream as stream:
        return file, stream.read()


def _body(request: Request) -> bytes:
    return request.get_data(cache=False)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
