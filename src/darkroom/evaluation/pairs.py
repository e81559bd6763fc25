"""Two networks on the same pictures: whether one is better, or the difference is chance.

McNemar's exact test looks at the pictures that only one of the two gets right: if they were equally good, each such
picture would be a fair coin. The interval of the difference is a paired bootstrap over pictures. Where several networks
are held against one, p-values are corrected by Holm's method and intervals widened by Bonferroni's; neither needs
independence.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from darkroom.errors import RunError

RESAMPLES = 10_000
LEVEL = 0.05
"""Differences with a corrected p-value of at least this are called chance; so often intervals may be wrong."""

Right = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Pair:
    """A network beside the best one: `difference` is its accuracy minus that of the best."""

    difference: float
    low: float
    """Of an interval that holds the difference with 95 % confidence, for all pairs together."""
    high: float
    only_this: int
    """Pictures that it alone gets right."""
    only_best: int
    p_value: float
    """Of McNemar's exact test, two-sided."""
    corrected: float
    """The same after Holm's correction for all comparisons made."""

    @property
    def distinguishable(self) -> bool:
        """Whether the difference is more than chance explains."""
        return self.corrected < LEVEL

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the verdict."""
        return {**asdict(self), "distinguishable": self.distinguishable}


def compare_with_best(right: Sequence[Right], best: int, *, seed: int = 0) -> list[Pair | None]:
    """Each row of `right` (N,), pictures that a network gets right, beside row `best`, which has None itself."""
    if len({len(row) for row in right}) != 1:
        raise RunError("the networks were not measured on the same pictures: evaluate all of them again")
    p_values = [mcnemar(row, right[best]) if place != best else None for place, row in enumerate(right)]
    corrected = iter(holm([value for value in p_values if value is not None]))
    level = LEVEL / max(1, len(right) - 1)
    pairs: list[Pair | None] = []
    for row, p_value in zip(right, p_values, strict=True):
        if p_value is None:
            pairs.append(None)
            continue
        low, high = difference_interval(row, right[best], level=level, seed=seed)
        pairs.append(
            Pair(
                difference=float(row.mean() - right[best].mean()),
                low=low,
                high=high,
                only_this=int((row & ~right[best]).sum()),
                only_best=int((right[best] & ~row).sum()),
                p_value=p_value,
                corrected=next(corrected),
            )
        )
    return pairs


def mcnemar(left: Right, right: Right) -> float:
    """Two-sided p-value of the exact test (McNemar 1947): 1 where the two never differ."""
    only_left, only_right = int((left & ~right).sum()), int((right & ~left).sum())
    if only_left + only_right == 0:
        return 1.0
    return float(binomtest(only_left, only_left + only_right).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979), in the order given."""
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return corrected


def difference_interval(left: Right, right: Right, *, level: float = LEVEL, seed: int = 0) -> tuple[float, float]:
    """Interval of the accuracy of `left` minus that of `right`, wrong in `level` of cases: percentiles over resamples.

    A picture counts 1, 0 or -1, so that resampling N of them is a draw of three numbers, which sum to N. Their shares
    are smoothed by half a picture in each of the four cells of right and wrong (Agresti and Min 2005): else two
    networks that never differ would be equal for certain, however few the pictures.
    """
    count = len(left)
    only_left, only_right = int((left & ~right).sum()), int((right & ~left).sum())
    cells = np.array([only_left + 0.5, only_right + 0.5, count - only_left - only_right + 1])
    drawn = np.random.default_rng(seed).multinomial(count, cells / cells.sum(), size=RESAMPLES)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / count, (level / 2, 1 - level / 2))
    return float(low), float(high)
