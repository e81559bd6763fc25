"""The manifest: every readable picture with its label, its place in the locked split, and its hash."""

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from darkroom import files
from darkroom.config import DataConfig
from darkroom.data.duplicates import group_duplicates
from darkroom.data.inspection import Inspection
from darkroom.data.pictures import Picture, Source
from darkroom.data.split import SPLITS, UNUSED, split_pictures
from darkroom.errors import DataError, RunError


@dataclass(frozen=True)
class Row:
    """One readable picture; `path` is posix and relative to the root, absolute where it lies outside."""

    id: int
    path: str
    label: str
    split: str
    sha256: str
    width: int
    height: int
    duplicate_group: int
    """Smallest id among the copies of this picture, its own if it has none."""


COLUMNS = [column.name for column in fields(Row)]


@dataclass(frozen=True)
class Manifest:
    """The readable pictures of a data set by id (0 to N-1), and the classes that labels index into."""

    root: Path
    classes: tuple[str, ...]
    rows: tuple[Row, ...]
    fingerprint: str
    unreadable: tuple[tuple[str, str], ...] = field(default=())
    """Name and reason of each picture that was left out."""

    def indices(self, split: str) -> npt.NDArray[np.int64]:
        """Ids of the pictures of `split`, ascending."""
        return np.array([row.id for row in self.rows if row.split == split], dtype=np.int64)

    @property
    def training_rows(self) -> list[Row]:
        """The training pictures with those left aside: size and network suit them all, whatever part is trained on."""
        return [row for row in self.rows if row.split in ("train", UNUSED)]

    def with_validation_to_train_on(self) -> "Manifest":
        """The same pictures, those of validation among those to train on."""
        rows = (replace(row, split="train") if row.split == "validation" else row for row in self.rows)
        return replace(self, rows=tuple(rows))

    def labels(self) -> npt.NDArray[np.int64]:
        """Index into `classes` of every row, shape (N,)."""
        places = {name: place for place, name in enumerate(self.classes)}
        return np.array([places[row.label] for row in self.rows], dtype=np.int64)

    def path(self, id: int) -> Path:
        """Where the picture lies on this machine."""
        return self.root / self.rows[id].path

    def content(self, id: int) -> bytes:
        """A picture's file as it was when the run began; raises `DataError` when it is not so any more."""
        path = self.path(id)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} can no longer be read ({error.strerror or error}): put it back") from error
        if hashlib.sha256(content).hexdigest() != self.rows[id].sha256:
            raise DataError(f"{path} has changed since the run began: put the old file back, or start a new run")
        return content

    def counts(self) -> dict[str, dict[str, int]]:
        """Pictures by split and class, zeros included, and those left aside where there are any."""
        found = Counter((row.split, row.label) for row in self.rows)
        splits = (*SPLITS, UNUSED) if any(split == UNUSED for split, _ in found) else SPLITS
        return {split: {name: found[split, name] for name in self.classes} for split in splits}

    def write(self, path: Path) -> None:
        """Replace `path` with this manifest as CSV."""
        # "\r\n" makes the csv module quote paths that hold either character, so that any file name survives.
        with (
            files.replacing(path) as temporary,
            temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream,
        ):
            writer = csv.writer(stream, lineterminator="\r\n")
            writer.writerow(COLUMNS)
            writer.writerows(astuple(row) for row in self.rows)

    @staticmethod
    def read(path: Path, *, root: Path, classes: Sequence[str], fingerprint: str) -> "Manifest":
        """Read what `write` wrote.

        Raises:
            RunError: the file is missing, or a line of it is not what `write` writes.
        """
        if not path.is_file():
            raise RunError(f"{path} is missing: start the run again with `darkroom train`")
        try:
            with path.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
                rows = tuple(_read_rows(stream, path=path, classes=frozenset(classes)))
        except (OSError, csv.Error) as error:
            raise RunError(f"{path} cannot be read ({error}): start the run again with `darkroom train`") from error
        return Manifest(root=root, classes=tuple(classes), rows=rows, fingerprint=fingerprint)


def build_manifest(source: Source, inspections: Sequence[Inspection], config: DataConfig) -> Manifest:
    """Leave out what cannot be read, find copies, and split the rest; same pictures and seed, same split anywhere.

    Raises:
        DataError: with `config.strict`, if any picture is unreadable; else if a whole class is, or too few
            pictures are left to split.
    """
    pairs = list(zip(source.pictures, inspections, strict=True))
    unreadable = tuple((picture.name, seen.error) for picture, seen in pairs if seen.error is not None)
    readable = [(picture, seen) for picture, seen in pairs if seen.error is None]
    if config.strict and unreadable:
        raise DataError(_name_unreadable(unreadable, total=len(pairs)))
    _require_classes(source, [picture for picture, _ in readable])

    labels = [picture.label for picture, _ in readable]
    given = [picture.split for picture, _ in readable]
    hashes = [seen.sha256 for _, seen in readable]
    groups = group_duplicates([seen for _, seen in readable])
    splits = split_pictures(hashes, labels=labels, given=given, groups=groups.tolist(), config=config)
    rows = tuple(
        Row(
            id=place,
            path=_portable_path(picture.path, source.root),
            label=picture.label,
            split=splits[place],
            sha256=seen.sha256,
            width=seen.width,
            height=seen.height,
            duplicate_group=int(groups[place]),
        )
        for place, (picture, seen) in enumerate(readable)
    )
    return Manifest(source.root, source.classes, rows, _fingerprint(hashes, labels, given), unreadable)


def _name_unreadable(unreadable: Sequence[tuple[str, str]], *, total: int, shown: int = 3) -> str:
    names = "; ".join(f"{name} ({reason})" for name, reason in unreadable[:shown])
    more = f"; and {len(unreadable) - shown} more" if len(unreadable) > shown else ""
    return f"{len(unreadable)} of {total} pictures cannot be read: {names}{more}. Mend or remove them, or drop --strict"


def _require_classes(source: Source, readable: Sequence[Picture]) -> None:
    kept = {picture.label for picture in readable}
    lost = [name for name in source.classes if name not in kept]
    if lost:
        names = ", ".join(repr(name) for name in lost[:3]) + (" and others" if len(lost) > 3 else "")
        raise DataError(
            f"no picture of {names} in {source.name} can be read: mend the files or remove the class "
            "(`darkroom doctor` names each file and its fault)"
        )


def _portable_path(path: Path, root: Path) -> str:
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def _fingerprint(hashes: Sequence[str], labels: Sequence[str], given: Sequence[str | None]) -> str:
    lines = sorted(json.dumps([*line[:2], line[2] or ""]) for line in zip(hashes, labels, given, strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _read_rows(stream: Iterator[str], *, path: Path, classes: frozenset[str]) -> Iterator[Row]:
    reader = csv.reader(stream, strict=True)
    if next(reader, None) != COLUMNS:
        raise RunError(f"{path}, line 1: the columns must be {','.join(COLUMNS)}")
    for place, values in enumerate(reader):
        fault = _fault(values, place, classes)
        if fault is not None:
            raise RunError(f"{path}, line {reader.line_num}: {fault}; start the run again with `darkroom train`")
        yield Row(int(values[0]), *values[1:5], *map(int, values[5:]))  # type: ignore[arg-type]


def _fault(values: Sequence[str], place: int, classes: frozenset[str]) -> str | None:
    if len(values) != len(COLUMNS):
        return f"{len(values)} values instead of {len(COLUMNS)}"
    row = dict(zip(COLUMNS, values, strict=True))
    checks = {
        f"id is {row['id']!r} instead of {place}": row["id"] == str(place),
        "path is empty": row["path"] != "",
        f"{row['label']!r} is not one of the {len(classes)} classes": row["label"] in classes,
        f"split is {row['split']!r} instead of {', '.join(SPLITS)}": row["split"] in (*SPLITS, UNUSED),
        "sha256 is not 64 hexadecimal digits": len(row["sha256"]) == 64
        and set(row["sha256"]) <= set("0123456789abcdef"),
    }
    checks |= {f"{name} is {row[name]!r}, not a number": row[name].isdecimal() for name in COLUMNS[5:]}
    fault = next((fault for fault, passed in checks.items() if not passed), None)
    if fault is None and int(row["duplicate_group"]) > place:
        return f"duplicate_group is {row['duplicate_group']!r}, not an id up to its own"
    return fault
