"""The figures that a training leaves behind before its first step: the data, its augmentation, the network."""

from typing import Any

import numpy as np
import numpy.typing as npt

from darkroom.data.augmentation import augment
from darkroom.data.batches import generator_for
from darkroom.data.dataset import DataSet
from darkroom.figures.data import augmented, class_balance, samples
from darkroom.figures.network import LayerRow, diagram
from darkroom.runs import Run
from darkroom.training.recipes import Settings

SAMPLES = 8
ORIGINALS = 6
VIEWS = 7


def illustrate(run: Run, dataset: DataSet) -> None:
    """Draw samples and balance of the classes, augmented views beside their originals, and the network."""
    content = run.read_config()
    settings = Settings.from_json(content["training"]["settings"])
    samples(run.figure("samples"), pixels_by_class=_samples(dataset))
    class_balance(run.figure("class_balance"), counts=dataset.manifest.counts())
    originals = _spread(dataset.manifest.indices("train"), ORIGINALS)
    augmented(
        run.figure("augmentation"),
        originals=np.asarray(dataset.pixels[originals]),
        views=_views(dataset, settings, originals, seed=content["seed"]),
    )
    diagram(run.figure("network"), layers=[_row(layer) for layer in content["network"]["layers"]])


def _samples(dataset: DataSet) -> dict[str, npt.NDArray[np.uint8]]:
    manifest = dataset.manifest
    ids = manifest.indices("train")
    labels = manifest.labels()[ids]
    return {
        name: np.asarray(dataset.pixels[_spread(ids[labels == label], SAMPLES)])
        for label, name in enumerate(manifest.classes)
    }


def _spread(ids: npt.NDArray[np.int64], number: int) -> npt.NDArray[np.int64]:
    """Up to `number` of the ids, evenly spaced."""
    return ids[np.linspace(0, len(ids) - 1, min(number, len(ids))).round().astype(int)] if len(ids) else ids


def _views(dataset: DataSet, settings: Settings, ids: npt.NDArray[np.int64], *, seed: int) -> npt.NDArray[np.uint8]:
    """Random views (n, v, H, W, 3) of the pictures `ids`, as training sees them but for mixing."""
    import torch

    pixels = torch.from_numpy(np.asarray(dataset.pixels[ids]))
    views = [augment(pixels, settings.augmentation, generator_for(seed, 0, view)) for view in range(VIEWS)]
    stacked = torch.stack(views, dim=1).permute(0, 1, 3, 4, 2)  # (n, v, H, W, 3)
    result: npt.NDArray[np.uint8] = stacked.round().clamp(0, 255).byte().numpy()
    return result


def _row(layer: dict[str, Any]) -> LayerRow:
    return LayerRow(**{**layer, "output_shape": tuple(layer["output_shape"])})
