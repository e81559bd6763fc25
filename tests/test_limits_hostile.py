"""Pictures and requests that mean harm: the answer is an answer or a refusal, never a crash, and memory comes back."""

import gc
import io
import json
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pillow_heif
import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import bundles
from darkroom.config import ServeConfig
from darkroom.engines.base import Engine
from darkroom.engines.decoding import Bounds
from darkroom.engines.explanation import explain
from darkroom.engines.onnx_runtime import OnnxRuntimeEngine
from darkroom.engines.pool import PooledEngine
from darkroom.engines.worker import WorkerEngine
from darkroom.errors import ImageError
from darkroom.web import create_app
from pictures import bomb, broken_files, noisy, png_chunk
from serving import RED, upload

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF")

FLIPS = (0x01, 0x80, 0xFF, 0x55, 0xAA, 0x10, 0x7F, 0x02, 0x0F, 0xF0)
"""What is laid over a byte."""


@pytest.fixture(scope="module")
def client(engine: Engine) -> FlaskClient:
    return create_app(engine, ServeConfig(max_megapixels=4, max_decode_seconds=20)).test_client()


def whole(kind: str) -> bytes:
    """A picture in which there is something to break."""
    stream = io.BytesIO()
    picture = noisy(40, 30)
    if kind == "HEIF":
        pillow_heif.from_pillow(picture).save(stream, quality=80)
    else:
        picture.save(stream, kind, **({"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"} if kind in ("JPEG", "WEBP") else {}))
    return stream.getvalue()


def damaged(content: bytes, flips: tuple[int, ...], steps: int) -> Iterator[bytes]:
    """`content` cut off, and with a byte changed, at each of `steps` places."""
    for step in range(steps):
        place = step * len(content) // steps
        yield content[:place]
        for flip in flips:
            yield content[:place] + bytes([content[place] ^ flip]) + content[place + 1 :]


def resident_megabytes(pid: int) -> float:
    """Memory of a process; nothing where that cannot be read."""
    table = Path(f"/proc/{pid}/statm")
    pages = int(table.read_text().split()[1]) if table.exists() else 0
    return pages * 4096 / 1e6


def ask_all(client: FlaskClient, contents: list[bytes]) -> int:
    """Ask about all of them; gives how many were answered."""
    answered = 0
    for start in range(0, len(contents), 64):
        batch = contents[start : start + 64]
        response = upload(client, *((f"{place}.jpg", content) for place, content in enumerate(batch)))
        assert response.status_code == 200, response.text
        entries = response.get_json()["predictions"]
        assert len(entries) == len(batch)
        answered += sum("error" not in entry for entry in entries)
        for entry in entries:
            assert ("error" in entry) != ("label" in entry)
    return answered


def test_broken_pictures_are_answered_or_refused(client: FlaskClient) -> None:
    for kind in FORMATS:
        contents = list(damaged(whole(kind), FLIPS[:2], 25))
        assert 0 <= ask_all(client, contents) < len(contents)
    assert ask_all(client, [RED]) == 1


@pytest.mark.slow
def test_ten_thousand_broken_pictures_leave_memory_as_it_was(folder: Path) -> None:
    """That of the server, and that of the one worker, which none of them ends."""
    corpus = {kind: list(damaged(whole(kind), FLIPS, 100)) for kind in FORMATS}
    assert sum(map(len, corpus.values())) >= 10_000
    with PooledEngine.open(folder, 1) as engine:
        client = create_app(engine, ServeConfig(max_megapixels=4, max_decode_seconds=20)).test_client()
        [worker] = engine._workers
        processes = (os.getpid(), worker._process.pid)
        for contents in corpus.values():  # libraries make room once
            ask_all(client, contents[:300])
        before = [resident_megabytes(pid) for pid in processes]
        for contents in corpus.values():
            ask_all(client, contents)
        for pid, megabytes in zip(processes, before, strict=True):
            assert resident_megabytes(pid) < megabytes + 20
        assert ask_all(client, [RED]) == 1
        assert engine._workers == {worker}


def test_broken_pictures_leave_nothing_that_waits_for_the_garbage_collector(folder: Path) -> None:
    """As long as it does not come by, a worker would grow with each of them."""
    halves = [content[: len(content) // 2] for content in map(whole, FORMATS)]
    contents = [*halves, *broken_files().values()]
    bounds = Bounds(max_seconds=20)
    with WorkerEngine.open(folder, threads=1) as engine:
        engine.read(contents, bounds)  # what is imported then leaves something, once
        with uncollected():
            assert sum(isinstance(one, ImageError) for one in engine.read(contents, bounds)) > len(FORMATS)


def test_a_broken_picture_to_explain_leaves_nothing_of_the_kind(folder: Path) -> None:
    """Else the server would hold uploads that it counts no more."""
    with OnnxRuntimeEngine.open(folder) as engine:
        engine.read([b"broken"], Bounds())  # imports something, too
        with uncollected(), pytest.raises(ImageError):
            explain(engine, "x", b"broken")


def test_nor_does_what_an_engine_refuses(folder: Path) -> None:
    with PooledEngine.open(folder, 1) as engine, uncollected(), pytest.raises(RuntimeError, match="in a worker"):
        engine._results([("nothing", ([b"picture"], Bounds()))])


@contextmanager
def uncollected() -> Iterator[None]:
    """Nothing may be left to the garbage collector."""
    gc.collect()
    gc.collect()  # what finalizers of the first left
    gc.disable()
    try:
        yield
        assert gc.collect() == 0
    finally:
        gc.enable()


# ---- bombs ----


def gif_bomb() -> bytes:
    """A GIF of 65,535 × 65,535 in 30 bytes."""
    frame = b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x02D\x01\x00;"
    return b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6) + frame


def webp_bomb() -> bytes:
    """A lossless WebP whose head says 16,383 × 16,383."""
    head = struct.pack("<BI", 0x2F, 16382 | 16382 << 14)
    chunk = b"VP8L" + struct.pack("<I", len(head) + 11) + head + bytes(11)
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def tiff_bomb(*, tile: int = 0) -> bytes:
    """A TIFF that says 60,000 × 60,000, or small with enormous tiles."""
    width = 16 if tile else 60_000
    entries = [(256, width), (257, width), (258, 8), (259, 1), (262, 1), (277, 1)]
    entries += [(322, tile), (323, tile), (324, 8), (325, 8)] if tile else [(273, 8), (278, width), (279, 8)]
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + body + bytes(4)


def png_of_zeros(side: int) -> bytes:
    """A PNG within no bound of pixels, whose megabytes are packed into kilobytes."""
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    packed = zlib.compress(bytes(side * (side + 1)), 9)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", packed) + png_chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A small PNG with a comment that unpacks to 200 MB."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(10**6)) for _ in range(200)) + packer.flush()
    comment = png_chunk(b"zTXt", b"Comment\0\0" + packed)
    at = RED.index(b"IDAT") - 4
    return RED[:at] + comment + RED[at:]


BOMBS = {
    "png": bomb,
    "png of zeros": lambda: png_of_zeros(2500),
    "gif": gif_bomb,
    "webp": webp_bomb,
    "tiff": tiff_bomb,
    "tiff of tiles": lambda: tiff_bomb(tile=60_000),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_by_their_head(client: FlaskClient, name: str) -> None:
    before = resident_megabytes(os.getpid())
    [entry] = upload(client, (name, BOMBS[name]())).get_json()["predictions"]
    said = entry["error"]["detail"]
    assert "too many pixels" in said or (name == "webp" and "not a picture" in said), "libwebp may find the fault first"
    assert resident_megabytes(os.getpid()) < before + 60


def test_a_bomb_in_a_comment_does_no_harm(client: FlaskClient) -> None:
    content = text_bomb()
    assert len(content) < 10**6
    before = resident_megabytes(os.getpid())
    assert upload(client, ("comment.png", content)).status_code == 200
    assert resident_megabytes(os.getpid()) < before + 100


# ---- polyglots, and what is no picture ----


def zipped() -> bytes:
    """A picture with an archive behind it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("../../etc/evil", "x" * 1000)
    return RED + stream.getvalue()


NOT_PICTURES = {
    "html.png": b"<!doctype html><script>alert(1)</script>",
    "svg.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "pdf.jpg": b"%PDF-1.7\n1 0 obj <</Type /Catalog>> endobj\n",
    "script.gif": b"GIF89a/*\0\0\0\0\0*/=1;alert(1);//",
    "program.png": b"\x7fELF" + bytes(200),
    "archive.zip": b"PK\x03\x04" + bytes(200),
    "movie.heic": b"\0\0\0\x18ftypmp42\0\0\0\0isommp42" + bytes(300),
    "xml.jpg": b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>',
    **broken_files(),
}


@pytest.mark.parametrize("name", NOT_PICTURES)
def test_what_is_no_picture_is_refused_as_one(client: FlaskClient, name: str) -> None:
    [entry] = upload(client, (name, NOT_PICTURES[name])).get_json()["predictions"]
    assert entry["error"]["status"] == 422
    for leak in ("Traceback", "/work", "site-packages", "root:"):
        assert leak not in entry["error"]["detail"]


def test_what_lies_behind_a_picture_is_never_looked_at(client: FlaskClient) -> None:
    [entry] = upload(client, ("both.png", zipped())).get_json()["predictions"]
    assert entry["label"] == "red"


# ---- JSON that unpacks to more than it weighs ----

INFLATED = """
import re, sys
from pathlib import Path
from darkroom.config import ServeConfig
from darkroom.web import create_app
from serving import FormulaEngine

def highest():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1000

client = create_app(FormulaEngine(), ServeConfig()).test_client()
def ask(path, body):
    return client.post(path, data=body, content_type="application/json").status_code

for path, name in (("/api/v1/predict", "files"), ("/v1/models/colours:predict", "instances")):
    ask(path, b" " * 8_000_000)
    before = highest()
    for part in (b"{},", b"[],", b"0,", b'{"a":{}},', b"777,"):  # more of each than any request may hold
        body = b'{"%s":[' % name.encode() + part * (8_000_000 // len(part)) + b"0]}"
        print(path, part, ask(path, body), round(highest() - before))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the highest memory")
def test_json_makes_no_more_of_itself_than_it_weighs() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", INFLATED], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 10
    for line in lines:
        status, megabytes = map(int, line.rsplit(" ", 2)[1:])
        assert status == 413, line
        assert megabytes < 50, f"8 MB, of which the client makes copies, took more: {line}"


# ---- names and heads ----

NAMES = ["../../../etc/passwd", "..\\..\\windows\\x", "/etc/passwd", "a\0b.png", "CON", ".htaccess", "x" * 5000]
NAMES += ["<script>alert(1)</script>.png", "'; DROP TABLE pictures; --", "\u202egnp.exe", "%2e%2e%2f", "$(reboot).png"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_shown_and_nothing_else(client: FlaskClient, name: str) -> None:
    [entry] = upload(client, (name, RED)).get_json()["predictions"]
    assert entry["label"] == "red"
    assert not set(entry["name"]) & set("/\\\0\u202e")
    assert len(entry["name"]) <= 120


@pytest.mark.parametrize(
    "head",
    [
        'form-data; name="files"; filename="a.png"; filename="b.png"',
        "form-data; name=\"files\"; filename*=UTF-8''%2e%2e%2fx.png",
        'form-data; name="files"; filename="a\r\n\tb.png"',
        "form-data; name=files; filename=../x",
        'attachment; name="files"; filename="a.png"',
        'form-data; name="files[]"; filename="a.png"',
        "form-data",
        "",
    ],
)
def test_odd_heads_of_parts_are_answered_or_refused(client: FlaskClient, head: str) -> None:
    body = f"--b\r\nContent-Disposition: {head}\r\n\r\n".encode() + RED + b"\r\n--b--\r\n"
    response = client.post("/api/v1/predict", data=body, content_type="multipart/form-data; boundary=b")
    assert response.status_code in (200, 400)
    assert "/" not in json.dumps([entry.get("name") for entry in response.get_json(force=True).get("predictions", ())])


# ---- whatever comes ----

RELAXED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
KINDS = st.sampled_from(
    ["image/png", "application/octet-stream", "application/json", "multipart/form-data; boundary=b", "text/plain", ""]
)
PATHS = st.sampled_from(["/", "/api/v1/predict", "/api/v1/explain", "/v1/models/colours:predict"])


@RELAXED
@given(path=PATHS, kind=KINDS, body=st.binary(max_size=400))
def test_any_bytes_are_answered_or_refused(client: FlaskClient, path: str, kind: str, body: bytes) -> None:
    response = client.post(path, data=body, content_type=kind)
    assert response.status_code < 500


WORDS = ["files", "content", "name", "instances", "inputs", "b64"]
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
JSON_VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
)


@RELAXED
@given(path=PATHS, content=JSON_VALUES)
def test_any_json_is_answered_or_refused(client: FlaskClient, path: str, content: object) -> None:
    response = client.post(path, data=json.dumps(content), content_type="application/json")
    assert response.status_code < 500


@RELAXED
@given(
    kind=st.sampled_from(FORMATS[:7]),
    places=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=12),
)
def test_any_few_bytes_may_be_wrong(client: FlaskClient, kind: str, places: list[tuple[float, int]]) -> None:
    content = np.frombuffer(whole(kind), np.uint8).copy()
    for place, value in places:
        content[int(place * len(content))] = value
    assert client.post("/api/v1/predict", data=content.tobytes(), content_type="image/png").status_code == 200


@RELAXED
@given(st.text(min_size=1, max_size=40), st.text(max_size=60))
def test_any_address_is_answered_or_refused(client: FlaskClient, path: str, query: str) -> None:
    assert client.get(f"/{quote(path, safe='')}", query_string={"top": query, "label": query}).status_code < 500
    assert client.post("/api/v1/predict", query_string={"top": query}, data=RED, content_type="x/y").status_code == 415


def test_pictures_within_the_bounds_are_answered(client: FlaskClient) -> None:
    """Else all of this would prove nothing."""
    wide, tall = (Image.new("RGB", size, (250, 0, 0)) for size in ((3990, 1000), (1, 4000)))
    for picture in (wide, tall):
        stream = io.BytesIO()
        picture.save(stream, "PNG")
        [entry] = upload(client, ("a.png", stream.getvalue())).get_json()["predictions"]
        assert entry["label"] == "red"
    assert bundles.CLASSES[0] == "red"
