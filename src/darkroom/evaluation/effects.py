"""The effect of one change, from trainings with and without it that share their seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t


@dataclass(frozen=True)
class Effect:
    """Mean difference of paired results, with a 95 % interval by Student's t, and its standard deviation.

    It is `sure` where the interval leaves out 0; not where all differences are alike, which tell of no spread.
    """

    mean: float
    low: float
    high: float
    deviation: float
    n: int
    sure: bool


def effect(changed: Sequence[float], base: Sequence[float]) -> Effect:
    """What the change adds, pair by pair: the same place in both is the same seed, and so the same split."""
    differences = np.array(changed) - np.array(base)
    n = len(differences)
    mean, deviation = float(differences.mean()), float(differences.std(ddof=1))
    half = float(t.ppf(0.975, n - 1)) * deviation / n**0.5
    sure = deviation > 0 and not mean - half <= 0 <= mean + half
    return Effect(mean, mean - half, mean + half, deviation, n, sure)
