"""A data set ready to train on: from what the user typed to a manifest and a pixel cache, or back from a run folder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from darkroom import files
from darkroom.config import DataConfig
from darkroom.data.cache import pixels
from darkroom.data.inspection import Inspection, inspect_pictures
from darkroom.data.manifest import Manifest, build_manifest
from darkroom.data.pictures import Source
from darkroom.data.sources import open_source
from darkroom.errors import DataError, RunError
from darkroom.preprocess import Preprocessing
from darkroom.progress import say
from darkroom.runs import Run

SMALL = 64
"""Pictures whose shorter side is at most this are shown to the network as they are."""

PHOTO = 128
"""Side for larger ones: a processor trains a network on them in minutes, and people still tell animals apart."""


Wish = Callable[[Manifest, int | None], Preprocessing | None]
"""How a network wants the pictures of a manifest, of the side that the user gave; None where it takes any."""


@dataclass(frozen=True)
class DataSet:
    """What the user typed, the source and manifest it led to, and the decoded pictures (N, H, W, 3) uint8."""

    argument: str
    name: str
    manifest: Manifest
    preprocessing: Preprocessing
    pixels: npt.NDArray[np.uint8]
    ignored: tuple[str, ...] = ()
    """Files and folders that are no pictures of a class, with the reason."""

    def to_json(self) -> dict[str, Any]:
        """The part of config.json from which `reopen` finds the data set again."""
        manifest = self.manifest
        return {
            "argument": self.argument,
            "name": self.name,
            "root": str(manifest.root),
            "fingerprint": manifest.fingerprint,
            "classes": list(manifest.classes),
            "counts": manifest.counts(),
            "unreadable": [list(entry) for entry in manifest.unreadable],
            "ignored": list(self.ignored),
            "leaks": leaks(manifest),
            "preprocessing": self.preprocessing.to_json(),
        }


def inspect_source(data: str, config: DataConfig) -> tuple[Source, list[Inspection]]:
    """Open a data set and look at each of its pictures once."""
    source = open_source(data, config)
    return source, inspect_pictures(source.pictures)


def prepare(data: str, config: DataConfig, wish: Wish | None = None) -> DataSet:
    """Open, inspect, split and decode a data set; unreadable pictures are named and left out.

    `wish` says how a network wants the pictures, if it minds.
    """
    source, inspections = inspect_source(data, config)
    manifest = build_manifest(source, inspections, config)
    _tell(source, manifest)
    preprocessing = _preprocessing(manifest, config, wish)
    cached = pixels(manifest, preprocessing, config.cache / "pixels")
    return DataSet(data, source.name, manifest, preprocessing, cached, source.ignored)


def prepared_for(dataset: DataSet, config: DataConfig, wish: Wish) -> DataSet:
    """The same pictures and split, decoded as another network wants them."""
    preprocessing = _preprocessing(dataset.manifest, config, wish)
    cached = pixels(dataset.manifest, preprocessing, config.cache / "pixels")
    return replace(dataset, preprocessing=preprocessing, pixels=cached)


def _preprocessing(manifest: Manifest, config: DataConfig, wish: Wish | None) -> Preprocessing:
    wanted = wish(manifest, config.image_size) if wish is not None else None
    if wanted is not None:
        return wanted
    side = config.image_size or suitable_size(manifest)
    return Preprocessing(width=side, height=side)


def leaks(manifest: Manifest) -> int:
    """Training pictures that have a copy in validation or test; only a split that came with the data can have any."""
    held_out = {row.duplicate_group for row in manifest.rows if row.split != "train"}
    return sum(row.split == "train" and row.duplicate_group in held_out for row in manifest.rows)


def suitable_size(manifest: Manifest) -> int:
    """The training pictures' median shorter side where that is small, else a size that suits photos on a processor."""
    side = round(median(min(row.width, row.height) for row in manifest.training_rows))
    return max(8, side) if side <= SMALL else PHOTO


def reopen(run: Run, config: DataConfig) -> DataSet:
    """The data set of a run, from its folder; raises `RunError` as `located` does."""
    content, manifest = run.read_config()["data"], located(run, config)
    preprocessing = Preprocessing.from_json(content["preprocessing"])
    cached = pixels(manifest, preprocessing, config.cache / "pixels")
    return DataSet(content["argument"], content["name"], manifest, preprocessing, cached, tuple(content["ignored"]))


def located(run: Run, config: DataConfig) -> Manifest:
    """The manifest of a run, whose pictures are read again from their source where the files have moved.

    Raises:
        RunError: the manifest or the pictures are not those that the run was made with.
    """
    content = run.read_config()["data"]
    if run.manifest.is_file() and files.sha256_of(run.manifest) != content["manifest_sha256"]:
        raise RunError(f"{run.manifest} was changed after the run began: put the old one back, or start a new run")
    manifest = Manifest.read(
        run.manifest, root=Path(content["root"]), classes=content["classes"], fingerprint=content["fingerprint"]
    )
    if not manifest.path(0).exists():
        manifest = _find_again(manifest, content, config)
    return replace(manifest, unreadable=tuple((name, reason) for name, reason in content["unreadable"]))


def _find_again(manifest: Manifest, content: Mapping[str, Any], config: DataConfig) -> Manifest:
    gone = f"the pictures of this run are no longer at {manifest.root}"
    try:
        source = open_source(content["argument"], config)
    except DataError as error:
        raise RunError(f"{gone}: put them back ({error})") from error
    moved = replace(manifest, root=source.root)
    if not moved.path(0).exists():
        raise RunError(f"{gone}, and {source.root} holds others: put {content['argument']} back as it was")
    return moved


def _tell(source: Source, manifest: Manifest) -> None:
    counts = {split: sum(by_class.values()) for split, by_class in manifest.counts().items()}
    split = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    say(f"{source.name}: {len(manifest.rows):,} pictures of {len(manifest.classes)} classes ({split})")
    if source.ignored:
        say(f"ignored: {len(source.ignored)} files or folders that are no pictures of a class (see `darkroom doctor`)")
    if copies := leaks(manifest):
        say(f"the split that came with the data leaks: {copies} training pictures have a copy in validation or test")
    if manifest.unreadable:
        say(f"left out, because unreadable: {len(manifest.unreadable)}")
        for picture, reason in manifest.unreadable[:20]:
            say(f"  {picture}: {reason}")
        if len(manifest.unreadable) > 20:
            say(f"  … all are listed in config.json ({len(manifest.unreadable) - 20} more)")
