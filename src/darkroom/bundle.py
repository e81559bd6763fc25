"""The deployable folder: graph, preprocessing, class names, golden pictures, card, and a hash of every byte of it.

    bundle/model.onnx     input "pixels" uint8 (N, H, W, 3); outputs "logits" and "probabilities" float32 (N, K)
    bundle/bundle.json    what the model is, where it came from, and the sha256 of the other files
    bundle/golden.npz     a few pictures, the pixels made of them and the answers expected
    bundle/model-card.md  what people should know of the model; bundles made before darkroom wrote cards have none

The hashes find damage and mix-ups; they are no signature, since whoever rewrites a bundle can also rewrite its hashes.
"""

import hashlib
import io
import json
import math
import re
import secrets
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from darkroom import files
from darkroom.errors import BundleError, DataError
from darkroom.preprocess import Preprocessing, load

FORMAT = 1
"""Version of the bundle's layout; raised when an older darkroom could no longer read it."""

MODEL_FILE = "model.onnx"
INFO_FILE = "bundle.json"
GOLDEN_FILE = "golden.npz"
CARD_FILE = "model-card.md"
MOST_GOLDEN = 10

GOLDEN_TOLERANCE = 1e-3
"""Largest difference in probability: processors differ by some 1e-6 in fp32, another graph by far more."""

MOST_TOLERANCE = 0.1
"""Most that a quantised bundle may state for itself; it rounds, and so it magnifies the differences of fp32."""

LOSSLESS_SIGNATURES = (b"\x89PNG", b"BM", b"GIF8", b"P4", b"P5", b"P6")
LOSSY_TOLERANCE = 0.5
"""Mean absolute difference in grey levels: builds of JPEG, WebP and HEIF decoders round by a level here and there,
while another resize filter, channel order or orientation moves a picture by whole levels."""

EXPORT_AGAIN = "copy the bundle again from where it was made, or make it anew with `darkroom export RUN`"


@dataclass(frozen=True, kw_only=True)
class BundleInfo:
    """What bundle.json says; `files` (name -> sha256) is filled in by `write_bundle`."""

    name: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    temperature: float
    threshold: float
    model: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)
    quantisation: Mapping[str, Any] = field(default_factory=dict)
    """How an int8 graph was made and what it lost and gained; empty where the graph computes in fp32."""
    novelty: Mapping[str, Any] = field(default_factory=dict)
    """When a picture is unlike those of training: `score` ("energy"), `threshold`, `false_alarms`; empty if unknown."""
    files: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.classes or len(set(self.classes)) != len(self.classes) or not all(self.classes):
            raise BundleError(f"the classes {list(self.classes)} are empty or not unique: give each one name")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise BundleError(f"the temperature is {self.temperature}: it must be a number above 0")
        if not 0 <= self.threshold <= 1:
            raise BundleError(f"the threshold is {self.threshold}: it must lie between 0 and 1")
        for part in ("model", "provenance", "metrics", "parity", "quantisation", "novelty", "files"):
            if not isinstance(getattr(self, part), Mapping):
                raise BundleError(f"{part} is {getattr(self, part)!r}: it must be a table of names and values")
        for name in self.files:
            _require_inside(name)
        if not 0 < self.golden_tolerance <= MOST_TOLERANCE:
            raise BundleError(
                f"the golden tolerance is {self.golden_tolerance}: it must be above 0 and at most {MOST_TOLERANCE}"
            )

        if self.novelty:
            _require_novelty(self.novelty)

    @property
    def golden_tolerance(self) -> float:
        """Largest difference in probability between the golden answers and those of an engine."""
        return float(self.quantisation.get("golden_tolerance", GOLDEN_TOLERANCE))

    @property
    def serving_name(self) -> str:
        """The name under which a model server knows the model: letters, digits, `.`, `_` and `-` of ASCII."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", self.name).strip("-.") or "model"

    @property
    def fingerprint(self) -> str:
        """A hash of all that the bundle says, the hashes of its files among it."""
        return _sha256(self.to_text())

    def to_text(self) -> str:
        """The one serialisation of bundle.json: the file must equal it byte for byte."""
        content: dict[str, Any] = {"format": FORMAT} | {part.name: getattr(self, part.name) for part in fields(self)}
        content["classes"] = list(self.classes)
        content["preprocessing"] = self.preprocessing.to_json()
        return _canonical(content | {"sha256": _sha256(_canonical(content))})

    @cached_property
    def sha256(self) -> str:
        """What the file says of itself, and so of the whole bundle, whose other files it has the hashes of."""
        return str(json.loads(self.to_text())["sha256"])

    @classmethod
    def read(cls, path: Path) -> "BundleInfo":
        """Read bundle.json; raises `BundleError` when it is of another version or not what was written."""
        content = _read_unchanged(path)
        values = {part.name: content[part.name] for part in fields(cls) if part.name in content}
        try:
            values["classes"] = tuple(str(name) for name in content["classes"])
            values["preprocessing"] = Preprocessing.from_json(content["preprocessing"])
            return cls(**values)
        except (KeyError, TypeError, ValueError, AttributeError, DataError) as error:
            raise BundleError(f"{path} cannot be understood ({error}): {EXPORT_AGAIN}") from error


@dataclass(frozen=True, eq=False)
class Golden:
    """Up to ten pictures as they were on disk, their `pixels` (n, H, W, 3) and the answers (n, K) expected."""

    encoded: tuple[bytes, ...]
    pixels: npt.NDArray[np.uint8]
    logits: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]

    def to_bytes(self) -> bytes:
        """The content of golden.npz; no part of it is a pickle."""
        stream = io.BytesIO()
        np.savez(
            stream,
            encoded=np.frombuffer(b"".join(self.encoded), dtype=np.uint8),
            offsets=np.cumsum([0, *map(len, self.encoded)], dtype=np.int64),
            pixels=self.pixels.astype(np.uint8, copy=False),
            logits=self.logits.astype(np.float32, copy=False),
            probabilities=self.probabilities.astype(np.float32, copy=False),
        )
        return stream.getvalue()

    @classmethod
    def read(cls, path: Path) -> "Golden":
        """Read golden.npz; raises `BundleError` when it is not one."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                encoded, offsets = stored["encoded"].tobytes(), stored["offsets"].tolist()
                pictures = tuple(encoded[start:end] for start, end in pairwise(offsets))
                return cls(pictures, *(stored[name] for name in ("pixels", "logits", "probabilities")))
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise BundleError(f"{path} cannot be read ({error}): {EXPORT_AGAIN}") from error

    def check(self, info: BundleInfo) -> None:
        """Raise `BundleError` unless count and shapes agree with each other and with `info`."""
        count, contract, classes = len(self.encoded), info.preprocessing, len(info.classes)
        if not 1 <= count <= MOST_GOLDEN:
            raise BundleError(f"{count} golden pictures in the bundle: give 1 to {MOST_GOLDEN}")
        _require_array("pixels", self.pixels, np.uint8, (count, contract.height, contract.width, 3))
        _require_array("logits", self.logits, np.float32, (count, classes))
        _require_array("probabilities", self.probabilities, np.float32, (count, classes))


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle that has been opened, and so verified."""

    folder: Path
    info: BundleInfo
    golden: Golden

    @property
    def model(self) -> Path:
        """Path of the ONNX graph."""
        return self.folder / MODEL_FILE

    @classmethod
    def open(cls, folder: Path) -> "Bundle":
        """Open a bundle whose every byte is what was exported; raises `BundleError` otherwise."""
        if not (folder / INFO_FILE).is_file():
            raise BundleError(
                f"{folder} is not a bundle (it holds no {INFO_FILE}): make one with `darkroom export RUN`"
            )
        info = BundleInfo.read(folder / INFO_FILE)
        for name in sorted({MODEL_FILE, GOLDEN_FILE, *info.files}):
            _require_unchanged(folder / name, info.files.get(name))
        golden = Golden.read(folder / GOLDEN_FILE)
        golden.check(info)
        return cls(folder, info, golden)

    def check_preprocessing(self) -> None:
        """Prepare the golden pictures anew; raises `BundleError` when this machine makes other pixels of them."""
        for place, (encoded, expected) in enumerate(zip(self.golden.encoded, self.golden.pixels, strict=True), start=1):
            difference = _difference(encoded, expected, self.info.preprocessing, place)
            tolerance = 0.0 if encoded.startswith(LOSSLESS_SIGNATURES) else LOSSY_TOLERANCE
            if difference > tolerance:
                raise BundleError(
                    f"{self.folder}: golden picture {place} is prepared differently here than at export (by "
                    f"{difference:.3g} grey levels on average, {tolerance:g} allowed): install the darkroom and Pillow "
                    "of the export"
                )


def write_bundle(
    folder: Path, *, info: BundleInfo, onnx: bytes | Path, golden: Golden, card: str | None = None
) -> Bundle:
    """Write a whole bundle beside `folder`, verify it, then put it in place of an older one."""
    golden.check(info)
    _require_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(folder, "new")
    try:
        _fill(temporary, info=info, onnx=onnx, golden=golden, card=card)
        verified = Bundle.open(temporary)
        _swap(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return replace(verified, folder=folder)


def _fill(folder: Path, *, info: BundleInfo, onnx: bytes | Path, golden: Golden, card: str | None) -> None:
    contents = {MODEL_FILE: onnx if isinstance(onnx, bytes) else onnx.read_bytes(), GOLDEN_FILE: golden.to_bytes()}
    contents |= {CARD_FILE: card.encode()} if card is not None else {}
    for name, content in contents.items():
        files.write_bytes(folder / name, content)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    files.write_text(folder / INFO_FILE, replace(info, files=hashes).to_text())


def _swap(temporary: Path, folder: Path) -> None:
    """Put `temporary` in the place of `folder`; the older bundle comes back when that fails."""
    old = _beside(folder, "old")
    existed = folder.exists()
    if existed:
        folder.rename(old)
    try:
        temporary.rename(folder)
    except BaseException:
        if existed:
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _beside(folder: Path, kind: str) -> Path:
    return folder.with_name(f".{folder.name}.{kind}.{secrets.token_hex(4)}")


def _require_replaceable(folder: Path) -> None:
    """Nothing that darkroom did not write is ever deleted."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise BundleError(f"{folder} is a file: name a folder for the bundle")
    ours = {MODEL_FILE, INFO_FILE, GOLDEN_FILE, CARD_FILE, "saved_model"}
    foreign = sorted(entry.name for entry in folder.iterdir() if entry.name not in ours and entry.name != ".DS_Store")
    if foreign:
        raise BundleError(
            f"{folder} holds {foreign[0]}, which is no part of a bundle: move it away or name another folder"
        )


def _read_unchanged(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode()
        content = json.loads(text)
        version = content["format"]
        rest = {name: value for name, value in content.items() if name != "sha256"}
        whole = text == _canonical(content) and content.get("sha256") == _sha256(_canonical(rest))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BundleError(f"{path} is damaged: {EXPORT_AGAIN}") from error
    if version != FORMAT:
        _refuse_version(path, version)
    if not whole:
        raise BundleError(f"{path} was changed after the export: {EXPORT_AGAIN}")
    return dict(content)


def _refuse_version(path: Path, version: object) -> None:
    newer = isinstance(version, int) and version > FORMAT
    remedy = "upgrade darkroom here" if newer else "make the bundle anew with `darkroom export RUN`"
    raise BundleError(f"{path} has format {version!r}, this darkroom reads format {FORMAT}: {remedy}")


def _require_unchanged(path: Path, sha256: str | None) -> None:
    if not path.is_file():
        raise BundleError(f"{path} is missing: {EXPORT_AGAIN}")
    if files.sha256_of(path) != sha256:
        raise BundleError(f"{path} was changed after the export: {EXPORT_AGAIN}")


def _require_inside(name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or path.as_posix() != name or set(name) & set("\\:\0") or name == ".":
        raise BundleError(f"the bundle lists a file {name!r}, which lies outside of its folder: do not use this bundle")


def _require_novelty(novelty: Mapping[str, Any]) -> None:
    """Raise `BundleError` unless this darkroom knows how to tell novelty so."""
    threshold, alarms = novelty.get("threshold"), novelty.get("false_alarms")
    finite = isinstance(threshold, int | float) and math.isfinite(threshold)
    if novelty.get("score") != "energy" or not finite or not isinstance(alarms, int | float) or not 0 <= alarms < 1:
        raise BundleError(
            f"novelty is {dict(novelty)}: it must have the score 'energy', a threshold, and false_alarms from 0 to 1"
        )


def _require_array(name: str, array: npt.NDArray[Any], dtype: type, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise BundleError(
            f"golden {name} are {array.dtype} {array.shape} where {np.dtype(dtype)} {shape} belong: {EXPORT_AGAIN}"
        )


def _difference(encoded: bytes, expected: npt.NDArray[np.uint8], preprocessing: Preprocessing, place: int) -> float:
    """Mean absolute difference in grey levels between the stored pixels and those made here."""
    try:
        pixels = load(encoded, preprocessing)
    except DataError as error:
        raise BundleError(
            f"golden picture {place} cannot be read here ({error}): install the libraries of the export"
        ) from error
    return float(np.abs(pixels.astype(np.int16) - expected).mean())


def _canonical(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
