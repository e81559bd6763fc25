"""A real run on a small drawn data set, with all its stages behind it but for the report, which `reported` makes."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from darkroom import workflow
from darkroom.config import DataConfig, TrainConfig
from darkroom.data.dataset import DataSet, reopen
from darkroom.runs import Run
from pictures import encoded

CLASSES = ("blob 1", "blob 2", "blob 10")
UNREADABLE = "blob 2/broken.png"
PICTURES_A_CLASS = 60
SIDE = 12


@dataclass(frozen=True)
class Finished:
    """A run, and what it was made from."""

    run: Run
    data: Path
    config: DataConfig

    def copy(self, folder: Path) -> "Finished":
        """The same with a run folder of its own, to be changed at will."""
        shutil.copytree(self.run.folder, folder)
        return Finished(Run(folder), self.data, self.config)

    def dataset(self) -> DataSet:
        """The data set of the run."""
        return reopen(self.run, self.config)


def finish(folder: Path) -> Finished:
    """Draw, train a little on one thread, evaluate both splits, export."""
    data, config = folder / "blobs", DataConfig(cache=folder / "cache")
    draw_blobs(data)
    run = Run(folder / "run")
    workflow.run_all(
        str(data), run, data_config=config, config=TrainConfig(epochs=4, threads=1, tensorboard=True, width=0.5)
    )
    for path in run.reported:
        path.unlink()
    return Finished(run, data, config)


def draw_blobs(root: Path, *, pictures: int = PICTURES_A_CLASS) -> None:
    """A red, green or blue blob by class; one in five has another class's colour, so that no network is perfect."""
    generator = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for number in range(pictures):
            pixels = generator.integers(0, 90, (SIDE, SIDE, 3), dtype=np.uint8)
            top, left = generator.integers(0, SIDE - 6, 2)
            colour = label if number % 5 else int(generator.integers(3))
            pixels[top : top + 6, left : left + 6, colour] = generator.integers(150, 256)
            (root / name / f"{number}.png").write_bytes(encoded(Image.fromarray(pixels)))
    (root / UNREADABLE).write_bytes(b"\x89PNG cut off")
