"""Copies of one picture: files with the same bytes, and the same picture saved again or at another size.

Two pictures are near-duplicates when their 8×8 thumbnails differ by few grey levels (root mean square of at most
`MOST_DIFFERENCE`), which are few against their contrast too (`MOST_RELATIVE`), and their proportions agree. Flat
pictures (`FLAT`), which say too little, never are.

Measured with copies made for it: photos saved as JPEG of quality 30 to 95 or WebP, or at half to double size, are all
found; so are 99 % of 32×32 pictures at quality 75 and more, as WebP or enlarged, and 69 % at half size. All 21 pairs
found in CIFAR-10 (JPEG) are copies to the eye; the first pair that is none differs by 0.22 of its contrast. Of
scikit-learn's 1,797 digits, where a thumbnail is the whole picture, the two most alike differ by 10.6 grey levels.

All sums are whole numbers that float32 holds exactly (192 · 255² < 2²⁴), so the groups do not depend on the machine,
on the order of files or on the number of threads.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from darkroom.data.inspection import SIDE, Inspection
from darkroom.progress import track

MOST_DIFFERENCE = 8
"""Grey levels, root mean square over a thumbnail."""
MOST_RELATIVE = 0.15
"""Of the thumbnail's standard deviation."""
FLAT = 4
"""Standard deviation in grey levels below which a thumbnail says too little to find copies by."""
MOST_ASPECT = 0.03
"""Relative difference of width / height."""
MOST_COMPARED = 100_000
"""Pictures up to which near-duplicates are looked for; above, only files with the same bytes are grouped."""
LARGEST_FAMILY = 100
"""Different files up to which a chain of near-duplicates is believed; a longer one is a kind of picture, not copies."""

_VALUES = SIDE * SIDE * 3
_BLOCK = 1024

Links = Iterable[tuple[int, int]]


def group_duplicates(inspections: Sequence[Inspection]) -> npt.NDArray[np.int64]:
    """The smallest index among each picture's copies, its own where it has none; shape (N,)."""
    first = _first_of_same_bytes(inspections)
    different = np.array(sorted(set(first)), dtype=np.int64)
    near = _families(near_duplicates([inspections[index] for index in different]), len(different))
    sizes = np.bincount(near, minlength=len(near))
    near = np.where(sizes[near] > LARGEST_FAMILY, np.arange(len(near)), near)
    # `different` ascends, so the first of a family is also its smallest index.
    return different[near][np.searchsorted(different, first)]


def near_duplicates(inspections: Sequence[Inspection]) -> list[tuple[int, int]]:
    """Pairs of indices whose thumbnails show the same picture; none above `MOST_COMPARED` pictures."""
    shown = [index for index, seen in enumerate(inspections) if seen.thumbnail is not None]
    if not 2 <= len(shown) <= MOST_COMPARED:
        return []
    raw = b"".join(inspections[index].thumbnail or b"" for index in shown)
    thumbnails = np.frombuffer(raw, dtype=np.uint8).reshape(len(shown), _VALUES)
    aspects = np.array([inspections[index].width / inspections[index].height for index in shown])
    order = np.argsort(thumbnails.sum(axis=1, dtype=np.int64), kind="stable")
    places = np.array(shown)[order]
    pairs = _alike(thumbnails[order].astype(np.float32), aspects[order])
    return [(int(places[left]), int(places[right])) for left, right in pairs]


def _alike(thumbnails: npt.NDArray[np.float32], aspects: npt.NDArray[np.float64]) -> Iterator[tuple[int, int]]:
    """Pairs among thumbnails (N, 192) that are sorted by their sum."""
    sums = thumbnails.sum(axis=1)  # (N,)
    squares = np.einsum("nv,nv->n", thumbnails, thumbnails)  # (N,)
    allowed = _allowed(sums, squares)
    # Means differ no more than root mean squares do, which leaves a narrow band of candidates.
    ends = np.searchsorted(sums, sums + _VALUES * MOST_DIFFERENCE, side="right")
    starts = range(0, len(sums), _BLOCK)
    for start in track(starts, total=len(starts), what="Looking for copies", unit="blocks"):
        rows = slice(start, min(start + _BLOCK, len(sums)))
        end = int(ends[rows.stop - 1])
        for other in range(start, end, _BLOCK * 8):
            columns = slice(other, min(other + _BLOCK * 8, end))
            products = thumbnails[rows] @ thumbnails[columns].T
            differences = (squares[rows, None] - products) + (
                squares[columns] - products
            )  # in an order that stays exact
            left, right = np.nonzero(differences <= np.minimum(allowed[rows, None], allowed[columns]))
            left, right = left + rows.start, right + columns.start
            ratios = aspects[left] / aspects[right]
            same = (left < right) & (np.maximum(ratios, 1 / ratios) <= 1 + MOST_ASPECT)
            yield from zip(left[same].tolist(), right[same].tolist(), strict=True)


def _allowed(sums: npt.NDArray[np.float32], squares: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Largest sum of squared differences that a copy of each picture may have, shape (N,); below zero for flat ones."""
    variances = squares / np.float64(_VALUES) - (sums / np.float64(_VALUES)) ** 2
    most = np.floor(_VALUES * np.minimum(MOST_DIFFERENCE**2, MOST_RELATIVE**2 * variances))
    return np.where(variances < FLAT**2, -1, most).astype(np.float32)


def _first_of_same_bytes(inspections: Sequence[Inspection]) -> list[int]:
    seen: dict[str, int] = {}
    return [
        seen.setdefault(inspection.sha256, index) if inspection.sha256 else index
        for index, inspection in enumerate(inspections)
    ]


def _families(links: Links, number: int) -> npt.NDArray[np.int64]:
    """The smallest index of each connected family, shape (number,)."""
    parents = list(range(number))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = index = parents[parents[index]]
        return index

    for left, right in links:
        smaller, larger = sorted((root(left), root(right)))
        parents[larger] = smaller
    return np.array([root(index) for index in range(number)], dtype=np.int64)
