"""A data set as a table: a .csv of path,label[,split], paths being absolute or relative to the table's folder."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from darkroom.data.layout import make_source, normal, split_named
from darkroom.data.pictures import Picture, Source
from darkroom.errors import DataError


def read_table(table: Path) -> Source:
    """The pictures that a table lists; raises `DataError` with the number of the line at fault."""
    pictures: dict[str, Picture] = {}
    lines: dict[str, int] = {}
    for line, row in _rows(table):
        picture = _picture(table, line, row)
        known = pictures.setdefault(picture.name, picture)
        if known != picture:
            what = "label" if known.label != picture.label else "split"
            first = lines[picture.name]
            raise DataError(f"{table} line {line}: {picture.name} has another {what} than in line {first}: keep one")
        lines.setdefault(picture.name, line)
    if not pictures:
        raise DataError(f"{table} lists no pictures: expected lines of path,label[,split] below the header")
    if len({picture.split is None for picture in pictures.values()}) > 1:
        line = next(lines[name] for name, picture in pictures.items() if picture.split is None)
        raise DataError(f"{table} line {line}: no split, though other lines have one: fill all of them or none")
    return make_source(table.stem, table.parent, pictures.values())


def _rows(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            header = stream.readline()
            delimiter = next((mark for mark in ",;\t" if mark in header), ",")  # Excel writes ; in half of Europe
            names = [name.strip(' "\r\n').casefold() for name in header.split(delimiter)]
            if not {"path", "label"} <= set(names):
                raise DataError(f"{table} line 1: expected the header path,label[,split] and found {header.strip()!r}")
            reader = csv.reader(stream, delimiter=delimiter, strict=True)
            for cells in reader:
                if any(cells):
                    yield reader.line_num + 1, dict(zip(names, map(str.strip, cells), strict=False))
    except UnicodeDecodeError as error:
        raise DataError(f"{table} is not UTF-8 text: save it as CSV UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{table} line {reader.line_num + 1}: not readable as CSV ({error})") from error


def _picture(table: Path, line: int, row: dict[str, str]) -> Picture:
    for column in ("path", "label"):
        if not row.get(column):
            raise DataError(f"{table} line {line}: the {column} is empty")
    split = split_named(row["split"]) if row.get("split") else None
    if row.get("split") and split is None:
        raise DataError(f"{table} line {line}: split is {row['split']!r}: write train, validation or test")
    path = _find(table, row["path"])
    if path is None:
        raise DataError(f"{table} line {line}: no file {row['path']} (looked in {table.parent})")
    return Picture(_relative(path, table.parent), path, normal(row["label"]), split)


def _find(table: Path, text: str) -> Path | None:
    """The file meant, also where the table was written on Windows."""
    for spelling in (text, text.replace("\\", "/")):
        path = Path(os.path.normpath(table.parent / spelling))
        if "\0" not in spelling and path.is_file():
            return path
    return None


def _relative(path: Path, folder: Path) -> str:
    """Posix path relative to `folder`; absolute where they lie on different drives of Windows."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return path.as_posix()
