"""From a multipart request to names that are safe to show and bytes; the application itself writes none to disk."""

import io
import unicodedata
from typing import IO

from flask import Request
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

from darkroom.web.service import Limits, Upload

FIELDS = ("files", "file")
LONGEST_NAME = 120


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
    if request.mimetype != "multipart/form-data":
        raise UnsupportedMediaType("send the pictures as multipart/form-data, one field named files for each picture")
    try:
        found = [file for field in FIELDS for file in request.files.getlist(field)]
    except RequestEntityTooLarge as error:
        raise RequestEntityTooLarge(f"The request is too large: {limits.in_words()}.") from error
    uploads = [(clean_name(file.filename), content) for file, content in map(_read, found) if content or file.filename]
    if not uploads:
        raise BadRequest("There is no picture in the request: add at least one in a field named files.")
    if len(uploads) > limits.files:
        raise RequestEntityTooLarge(f"There are {len(uploads)} pictures in the request: {limits.in_words()}.")
    return uploads


def clean_name(name: str | None) -> str:
    """The last part of an uploaded file's name without control and direction characters, at most 120 characters."""
    last = (name or "").replace("\\", "/").rsplit("/", 1)[-1]
    shown = "".join(character for character in last if unicodedata.category(character)[0] != "C").strip()
    return _shortened(shown) or "picture"


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 13]}…{name[-12:]}"


def _read(file: FileStorage) -> tuple[FileStorage, bytes]:
    with file.stream as stream:
        return file, stream.read()
