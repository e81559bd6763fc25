"""How unlike the pictures of training a picture is, told from its logits against a threshold of the bundle.

The score is the free energy of the tempered logits (Liu et al. 2020): low where some class fits well, high where none
does. bundle.json states the threshold and the part of ordinary pictures that lie above it all the same.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from darkroom.bundle import BundleInfo

FALSE_ALARMS = 0.05
"""Part of ordinary pictures that may be called unlike those of training (judgement)."""

LEAST_PICTURES = 40
"""With fewer, the threshold would hang on one or two of them, and none is stated."""


class Novelty(NamedTuple):
    """A picture's score, and whether it lies above the threshold."""

    score: float
    unlike: bool


def fit_novelty(logits: npt.NDArray[np.float32], temperature: float) -> dict[str, Any]:
    """What bundle.json says of novelty, from logits (N, K) of validation; nothing where these are too few."""
    if len(logits) < LEAST_PICTURES:
        return {}
    scores = energies(logits, temperature)
    threshold = float(np.quantile(scores, 1 - FALSE_ALARMS, method="higher"))
    return {"score": "energy", "threshold": threshold, "false_alarms": float((scores > threshold).mean())}


def novelties(info: BundleInfo, logits: npt.NDArray[np.float32]) -> list[Novelty | None]:
    """The novelty of each row of logits (N, K); None for all of them where the bundle has no threshold."""
    if not info.novelty:
        return [None] * len(logits)
    threshold = float(info.novelty["threshold"])
    return [Novelty(score, score > threshold) for score in energies(logits, info.temperature).tolist()]


def energies(logits: npt.NDArray[np.float32], temperature: float) -> npt.NDArray[np.float64]:
    """Free energies (N,) of logits (N, K) divided by the temperature."""
    tempered = logits.astype(np.float64) / temperature
    highest = tempered.max(axis=1, keepdims=True)
    sums = np.exp(tempered - highest).sum(axis=1)
    return np.asarray(-temperature * (highest[:, 0] + np.log(sums)))
