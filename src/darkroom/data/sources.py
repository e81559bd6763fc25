"""The one door for data: from what the user typed to labelled picture files, which are only ever read."""

import difflib
from pathlib import Path

from darkroom.config import DataConfig
from darkroom.data.archives import unpack
from darkroom.data.cifar10 import cifar10_folder
from darkroom.data.digits import digits_folder
from darkroom.data.layout import ANIMALS10_FOLDER, ENGLISH_OF_ITALIAN, EXPECTED, read_folder
from darkroom.data.pictures import Picture, Source, natural_key, natural_order
from darkroom.data.tables import read_table
from darkroom.errors import DataError, UsageError

__all__ = ["BUILT_IN", "Picture", "Source", "natural_key", "natural_order", "open_source"]

BUILT_IN = ("digits", "cifar10", "animals10")
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tbz")


def open_source(data: str, config: DataConfig) -> Source:
    """The pictures of `digits`, `cifar10`, `animals10`, a folder, an archive or a .csv.

    Raises:
        DataError: it does not exist, or is not laid out as a data set.
        UsageError: `--archive` is given for data that has none.
    """
    if config.archive is not None and data not in ("cifar10", "animals10"):
        raise UsageError(f"--archive {config.archive} goes with cifar10 or animals10, not with {data}: leave it out")
    try:
        return _open(data, config)
    except OSError as error:
        raise DataError(f"cannot read {error.filename or data}: {error.strerror or error}") from error


def _open(data: str, config: DataConfig) -> Source:
    if data == "digits":
        return read_folder(digits_folder(config.cache), data)
    if data == "cifar10":
        return read_folder(cifar10_folder(config.cache, archive=config.archive), data)
    if data == "animals10":
        return _open_animals10(config)
    path = Path(data).expanduser().absolute()
    if path.suffix.lower() == ".csv" and path.is_file():
        return read_table(path)
    return _open_path(path, config.cache, name=_stem(path))


def _open_path(path: Path, cache: Path, *, name: str) -> Source:
    if path.is_dir():
        return read_folder(path, name)
    if path.is_file():
        if not path.name.lower().endswith(ARCHIVE_SUFFIXES):
            raise DataError(f"{path} is neither a folder nor a .zip, .tar[.gz|.bz2|.xz] or .csv file: {EXPECTED}")
        return read_folder(unpack(path, cache), name)
    raise DataError(f"{path} does not exist{_suggestion(path)}")


def _open_animals10(config: DataConfig) -> Source:
    if config.archive is None:
        raise DataError(
            "animals10 cannot be downloaded without an account: get the archive from "
            "https://www.kaggle.com/datasets/alessiocorrado99/animals10 and give it with --archive FILE-OR-FOLDER"
        )
    path = config.archive.expanduser().absolute()
    source = _open_path(path, config.cache, name="animals10")
    strange = [name for name in source.classes if name not in ENGLISH_OF_ITALIAN.values()]
    if strange:
        expected = f"{ANIMALS10_FOLDER}/cane/, {ANIMALS10_FOLDER}/cavallo/, …"
        raise DataError(f"--archive {path} is not Animals-10: it holds the class {strange[0]!r}; expected {expected}")
    return source


def _stem(path: Path) -> str:
    """The name without the suffix of an archive, where it is one."""
    suffixes = [suffix for suffix in ARCHIVE_SUFFIXES if path.name.lower().endswith(suffix)] if path.is_file() else []
    return path.name[: -max(map(len, suffixes))] if suffixes else path.name


def _suggestion(path: Path) -> str:
    """What may have been meant: a built-in name, or something that lies beside."""
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, [*BUILT_IN, *siblings], n=3, cutoff=0.6)
    known = f"give a folder, an archive, a .csv, or one of {', '.join(BUILT_IN)}"
    return f": did you mean {' or '.join(close)}?" if close else f": {known}"
