"""What a folder means: which of its files are pictures, which folders are classes, which are splits."""

import os
import re
import unicodedata
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from darkroom.data.pictures import Picture, Source, natural_key, natural_order
from darkroom.errors import DataError

EXPECTED = (
    "expected a folder for each class (cats/, dogs/, …) with its pictures inside, "
    "or train/ and test/ with such folders in each"
)
HOUSEKEEPING = {
    *("__macosx", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin"),
    *("system volume information", "lost+found"),
}
_DOCUMENTS = ".txt .md .rst .html .htm .css .xml .pdf .doc .docx .odt .xls .xlsx .ods .ppt .pptx .log .url .lnk .names"
_TABLES = ".csv .tsv .json .jsonl .yaml .yml .toml .ini .cfg .db .sqlite .parquet .mat .npy .npz .h5 .hdf5 .arff .data"
_PROGRAMS = ".py .pyc .ipynb .r .m .sh .bat .ps1 .c .cpp .h .java .js .exe .dll .so .dylib .pkl .pickle .pt .pth .onnx"
_OTHERS = ".zip .tar .gz .tgz .bz2 .xz .7z .rar .tfrecord .mp4 .avi .mov .mkv .webm .mp3 .wav .lock"
NOT_PICTURES = frozenset(f"{_DOCUMENTS} {_TABLES} {_PROGRAMS} {_OTHERS}".split())
SPLIT_OF_WORD = {
    **{"train": "train", "training": "train"},
    **{"val": "validation", "valid": "validation", "validation": "validation"},
    **{"test": "test", "testing": "test"},
}
ENGLISH_OF_ITALIAN = {
    **{"cane": "dog", "cavallo": "horse", "elefante": "elephant", "farfalla": "butterfly", "gallina": "chicken"},
    **{"gatto": "cat", "mucca": "cow", "pecora": "sheep", "ragno": "spider", "scoiattolo": "squirrel"},
}
ANIMALS10_FOLDER = "raw-img"


@dataclass
class Listing:
    """All files below a folder, as posix paths relative to it; `folders` are those that could be classes."""

    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def normal(label: str) -> str:
    """A label without blanks around it, in the Unicode form NFC, so that é from a Mac equals é from Linux."""
    return unicodedata.normalize("NFC", label).strip()


def read_folder(folder: Path, name: str) -> Source:
    """The labelled pictures of a folder of class folders, or of train/ [val/] test/ with such folders in each.

    Raises `DataError` where neither is found, or fewer than two classes.
    """
    listing = list_files(folder)
    if not listing.files:
        raise DataError(f"{folder} holds no pictures: {EXPECTED}")
    wrapper = _wrapper(listing.files)
    inside = [path for path in listing.files if path.startswith(wrapper)]
    ignored = [f"{path}: outside the class folders" for path in listing.files if not path.startswith(wrapper)]
    root = folder / wrapper
    splits = _splits(root, {_top(path[len(wrapper) :]) for path in inside})
    pictures = []
    for path in inside:
        found = _picture(root, path[len(wrapper) :], splits)
        if found is None:
            ignored.append(f"{path}: outside the class folders")
        else:
            pictures.append(found)
    pictures = _in_english(pictures, root)
    ignored += _empty_folders(listing)
    return make_source(name, root, pictures, ignored=listing.ignored + ignored)


def make_source(name: str, root: Path, pictures: Iterable[Picture], *, ignored: Sequence[str] = ()) -> Source:
    """Pictures and classes in natural order; raises `DataError` for fewer than two classes."""
    ordered = sorted(pictures, key=lambda picture: natural_key(picture.name))
    classes = natural_order({picture.label for picture in ordered})
    if not classes:
        raise DataError(f"{root} holds pictures but no class folders: {EXPECTED}")
    if len(classes) < 2:
        raise DataError(f"{root} holds pictures of one class only ({classes[0]!r}): give at least two; {EXPECTED}")
    return Source(name, root, tuple(ordered), tuple(classes), tuple(natural_order(ignored)))


def list_files(folder: Path) -> Listing:
    """Walk `folder`; links are followed, but only to folders not met otherwise, so that loops end."""
    listing = Listing()
    seen: set[tuple[int, int]] = set()
    waiting = deque([(str(folder), "", False)])
    while waiting:
        place, prefix, linked = waiting.popleft()
        status = os.stat(place)
        if linked and (status.st_dev, status.st_ino) in seen:
            listing.ignored.append(f"{prefix}: a link to a folder that is read already")
            continue
        seen.add((status.st_dev, status.st_ino))
        if prefix:
            listing.folders.append(prefix)
        with os.scandir(place) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                name = f"{prefix}/{entry.name}" if prefix else entry.name
                reason = _reason_against(entry)
                if reason:
                    listing.ignored.append(f"{_printable(name)}: {reason}")
                elif entry.is_file():
                    listing.files.append(name)
                elif linked or entry.is_symlink():
                    waiting.append((entry.path, name, True))  # after all real folders, which have the older right
                else:
                    waiting.appendleft((entry.path, name, False))
    return listing


def _reason_against(entry: os.DirEntry[str]) -> str | None:
    """Why an entry is neither a picture nor a folder to look into; None where it is."""
    if entry.name.startswith(".") or entry.name.casefold() in HOUSEKEEPING:
        return "hidden or housekeeping"
    if _printable(entry.name) != entry.name:
        return "a name that is not valid text: rename it"
    try:
        if entry.is_dir():
            return None
        usable = entry.is_file()
    except OSError:  # a link to itself
        usable = False
    if not usable:
        return "a broken link, or neither file nor folder"
    extension = os.path.splitext(entry.name)[1].lower()
    return f"not a picture ({extension})" if extension in NOT_PICTURES else None


def _printable(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _top(path: str) -> str:
    """The first folder of a path, "" for a file that lies in none."""
    return path.partition("/")[0] if "/" in path else ""


def _wrapper(paths: list[str]) -> str:
    """The folders, as "a/b/" or "", that merely wrap the class folders: one alone, with only folders inside."""
    wrapper = ""
    while True:
        tops = {_top(path[len(wrapper) :]) for path in paths if path.startswith(wrapper)} - {""}
        if len(tops) != 1:
            return wrapper
        deeper = f"{wrapper}{tops.pop()}/"
        if not all(_top(path[len(deeper) :]) for path in paths if path.startswith(deeper)):
            return wrapper
        wrapper = deeper


def _splits(root: Path, tops: set[str]) -> dict[str, str]:
    """Split that each folder stands for; empty where the folders are classes (one of which may be called "train")."""
    splits = {top: split for top in tops if (split := split_named(top))}
    found = set(splits.values())
    if len(found) < 2:
        return {}
    for split in found:
        same = natural_order(top for top in splits if splits[top] == split)
        if len(same) > 1:
            raise DataError(f"{root} has several folders for one split: {', '.join(same)}: keep one of them")
    if "train" in found:
        return splits
    if splits.keys() == tops - {""}:
        raise DataError(f"{root} has {' and '.join(natural_order(splits))} but no train/: {EXPECTED}")
    return {}


def split_named(text: str) -> str | None:
    """The split that a word means, such as "Val" or "training_set"; None for any other word."""
    return SPLIT_OF_WORD.get(re.sub(r"[ _-]?(set|data|images)$", "", text.strip().casefold()))


def _picture(root: Path, name: str, splits: dict[str, str]) -> Picture | None:
    """The picture at `name` below `root`; None for one outside the class folders."""
    *folders, _ = name.split("/")
    split = splits.get(folders[0]) if folders else None
    if splits:
        if split is None:
            return None
        wrapped = len(folders) > 2 and folders[1] == folders[0]  # training_set/training_set/cats, as on Kaggle
        folders = folders[2:] if wrapped else folders[1:]
    return Picture(name, root / name, normal(folders[0]), split) if folders else None


def _in_english(pictures: list[Picture], root: Path) -> list[Picture]:
    """Animals-10 with its class names translated; any other pictures as they are."""
    labels = {picture.label.casefold() for picture in pictures}
    italian = ENGLISH_OF_ITALIAN.keys()
    if not (labels == italian or (root.name == ANIMALS10_FOLDER and labels <= italian)):
        return pictures
    return [
        Picture(picture.name, picture.path, ENGLISH_OF_ITALIAN[picture.label.casefold()], picture.split)
        for picture in pictures
    ]


def _empty_folders(listing: Listing) -> list[str]:
    """Folders without a picture anywhere inside, the outermost only."""
    filled = {path[:end] for path in listing.files for end in range(len(path)) if path[end] == "/"}
    empty = set(listing.folders) - filled
    return [f"{folder}: no pictures inside" for folder in empty if folder.rpartition("/")[0] not in empty]
