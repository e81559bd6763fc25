"""The locked split: stratified by class, decided by the pictures' hashes and a seed, and by nothing else.

Copies of one picture form a group, and a group is never cut. Which group goes where follows the order of
sha256(seed, smallest hash of the group), so names, order of files and machine do not matter.
A class keeps a group in train before any split is cut from it, and one for validation before the test is cut: three
groups give each split one, two give train and (by its share) validation one, and a single picture is trained on.

Where only a part of train is to be trained on, the first groups of each class in that order are it, so that a smaller
part lies within a larger one. What is left aside is in no split; validation and test are those that they would be
anyway.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from darkroom.config import DataConfig
from darkroom.errors import DataError

SPLITS = ("train", "validation", "test")
UNUSED = "unused"
"""What the manifest says of pictures of train that are left aside."""
MOST_VALIDATION = 2500
"""They tell an accuracy of 90 % to within 0.6 points (a standard error); more are worth more to learn from."""


@dataclass(frozen=True)
class _Group:
    """Copies of one picture: how many there are of each class."""

    key: bytes
    members: tuple[int, ...]
    sizes: Counter[str]


def split_pictures(
    hashes: Sequence[str],
    *,
    labels: Sequence[str],
    given: Sequence[str | None],
    groups: Sequence[int],
    config: DataConfig,
) -> list[str]:
    """Name the split of every picture, or `UNUSED`.

    Splits that are given stay as they are, and what is missing is cut out of the rest: test, then validation (at most
    `MOST_VALIDATION` pictures). Pictures without a given split count as train if others have one. Only groups that lie
    wholly in train are cut from, so that validation never holds a copy of a given test picture, nor the reverse.
    Last of all, what is beyond `train_fraction` of train is left aside.

    Raises:
        DataError: nothing to train on, or too few pictures to cut a split.
    """
    present = {split for split in given if split is not None}
    splits = [split or "train" for split in given]
    if "train" not in splits:
        raise DataError("no picture is meant for training: add a train split, or leave the splits out to have them cut")
    sizes = Counter(label for label, split in zip(labels, splits, strict=True) if split == "train")
    free = _free_groups(hashes, labels=labels, splits=splits, groups=groups, seed=config.seed)
    plan = {"test": (config.test_fraction, None), "validation": (config.validation_fraction, MOST_VALIDATION)}
    missing = [split for split in plan if split not in present]
    for place, split in enumerate(missing):
        fraction, most = plan[split]
        chosen = _cut(free, sizes, fraction=fraction, most=most, keep=len(missing) - place)
        if not chosen:
            raise DataError(_too_few(split, sizes))
        free = [group for group in free if group.key not in chosen]
        for member in (member for group in chosen.values() for member in group.members):
            splits[member] = split
    if config.train_fraction < 1:
        for member in _left_aside(hashes, labels=labels, splits=splits, groups=groups, config=config):
            splits[member] = UNUSED
    return splits


def _free_groups(
    hashes: Sequence[str], *, labels: Sequence[str], splits: Sequence[str], groups: Sequence[int], seed: int
) -> list[_Group]:
    """Groups that lie wholly in train, in the order that the seed gives them."""
    held_out = {group for group, split in zip(groups, splits, strict=True) if split != "train"}
    free = [member for member, group in enumerate(groups) if group not in held_out]
    return _in_order(free, hashes, labels=labels, groups=groups, seed=seed)


def _in_order(
    members: Iterable[int], hashes: Sequence[str], *, labels: Sequence[str], groups: Sequence[int], seed: int
) -> list[_Group]:
    """The groups that these pictures form, in the order that the seed gives them."""
    families: dict[int, list[int]] = {}
    for member in members:
        families.setdefault(groups[member], []).append(member)
    found = [
        _Group(
            key=hashlib.sha256(f"{seed} {min(hashes[member] for member in family)}".encode()).digest(),
            members=tuple(family),
            sizes=Counter(labels[member] for member in family),
        )
        for family in families.values()
    ]
    return sorted(found, key=lambda group: group.key)


def _left_aside(
    hashes: Sequence[str],
    *,
    labels: Sequence[str],
    splits: Sequence[str],
    groups: Sequence[int],
    config: DataConfig,
) -> list[int]:
    """Pictures of train that are not trained on: of each class its groups behind those that make up its share.

    A share is at least one picture, and as much too large as the last group in it is. A group of several classes stays
    if any of them wants it.
    """
    train = [member for member, split in enumerate(splits) if split == "train"]
    part = Fraction(str(config.train_fraction))
    sizes = Counter(labels[member] for member in train)
    seats = {name: max(1, int(part * size + Fraction(1, 2))) for name, size in sizes.items()}
    aside: list[int] = []
    before: Counter[str] = Counter()  # pictures of each class in earlier groups, whether these stay or not
    for group in _in_order(train, hashes, labels=labels, groups=groups, seed=config.seed):
        if all(before[name] >= seats[name] for name in group.sizes):
            aside += group.members
        before.update(group.sizes)
    return aside


def _cut(
    free: Sequence[_Group], sizes: Counter[str], *, fraction: float, most: int | None, keep: int
) -> dict[bytes, _Group]:
    """Choose groups for one split, leaving each class `keep` groups for train and the splits still to be cut."""
    kept, rooms = _keep(free, keep)
    seats = _seats(sizes, rooms, fraction=fraction, most=most)
    taken: Counter[str] = Counter()
    chosen: dict[bytes, _Group] = {}
    open_groups = [group for group in free if group.key not in kept]
    for group in open_groups:
        if all(taken[name] + size <= seats[name] for name, size in group.sizes.items()):
            chosen[group.key] = group
            taken.update(group.sizes)
    # A class whose copies come in groups larger than its seats would go without: give it its smallest group.
    for name in sorted(name for name in seats if seats[name] and not taken[name]):
        rest = [group for group in open_groups if name in group.sizes and group.key not in chosen]
        for group in sorted(rest, key=lambda group: (len(group.members), group.key))[:1]:
            if most is None or taken.total() + len(group.members) <= most:
                chosen[group.key] = group
                taken.update(group.sizes)
    return chosen


def _keep(free: Sequence[_Group], keep: int) -> tuple[set[bytes], Counter[str]]:
    """The last `keep` groups of every class, and how many pictures of each class lie outside them."""
    left: Counter[str] = Counter()
    kept: set[bytes] = set()
    for group in reversed(free):
        if any(left[name] < keep for name in group.sizes):
            kept.add(group.key)
        left.update(group.sizes.keys())
    rooms: Counter[str] = Counter()
    for group in free:
        if group.key not in kept:
            rooms.update(group.sizes)
    return kept, rooms


def _seats(sizes: Counter[str], rooms: Counter[str], *, fraction: float, most: int | None) -> Counter[str]:
    """Pictures to take from each class: its exact share rounded down or up, by largest remainder, and at least one."""
    total = sizes.total()
    target = Fraction(str(fraction)) * total
    target = target if most is None else min(target, Fraction(most))
    shares = {name: size * target / total for name, size in sizes.items()}
    seats = Counter({name: min(int(share), rooms[name]) for name, share in shares.items()})
    # A class without a seat comes before the largest remainder; among equals the name decides.
    waiting = sorted(
        (name for name in sizes if seats[name] < rooms[name] and seats[name] < shares[name]),
        key=lambda name: (seats[name] > 0, seats[name] - shares[name], name),
    )
    unseated = sum(seats[name] == 0 for name in waiting)
    extra = max(int(target + Fraction(1, 2)) - seats.total(), unseated)
    extra = extra if most is None else min(extra, most - seats.total())
    seats.update(waiting[:extra])
    return seats


def _too_few(split: str, sizes: Counter[str]) -> str:
    return (
        f"{sizes.total()} pictures in {len(sizes)} classes are too few to cut a {split} split: give at least one class "
        "three different pictures (copies count once)"
    )
