import csv
import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.config import DataConfig
from darkroom.data.inspection import Inspection
from darkroom.data.manifest import COLUMNS, Manifest, build_manifest
from darkroom.data.pictures import Picture, Source
from darkroom.data.split import MOST_VALIDATION, UNUSED, split_pictures
from darkroom.errors import DataError, RunError

ROOT = Path("/data/pets")
CLASSES = ("bird", "cat", "dog")


@dataclass(frozen=True)
class Fake:
    """A picture by what decides its place: its content, its label, and the split it came with."""

    name: str
    label: str
    content: str
    split: str | None = None
    error: str | None = None


def inspection(fake: Fake) -> Inspection:
    digest = hashlib.sha256(fake.content.encode()).hexdigest()
    return Inspection(digest, 10, 32, 24, "RGB", "PNG", 1, 1, thumbnail=None, error=fake.error)


def manifest_of(fakes: list[Fake], classes: tuple[str, ...] = CLASSES, **options: object) -> Manifest:
    pictures = tuple(Picture(fake.name, ROOT / fake.name, fake.label, fake.split) for fake in fakes)
    source = Source("pets", ROOT, pictures, classes, ())
    return build_manifest(source, [inspection(fake) for fake in fakes], DataConfig(**options))  # type: ignore[arg-type]


def plain(per_class: int, classes: tuple[str, ...] = CLASSES, split: str | None = None) -> list[Fake]:
    return [
        Fake(f"{split}/{label}/{number}.png", label, f"{split} {label} {number}", split)
        for label in classes
        for number in range(per_class)
    ]


def split_by_name(manifest: Manifest) -> dict[str, str]:
    return {row.path: row.split for row in manifest.rows}


@st.composite
def with_copies(draw: st.DrawFn) -> list[Fake]:
    """Some dozens of pictures of three classes, of which some are copies, across classes too."""
    contents = draw(st.lists(st.tuples(st.sampled_from(CLASSES), st.integers(0, 40)), min_size=10, max_size=80))
    base = [Fake(f"{place}.png", label, str(content)) for place, (label, content) in enumerate(contents)]
    return plain(4) + base


@settings(max_examples=40, deadline=None)
@given(fakes=with_copies(), order=st.randoms(use_true_random=False), seed=st.integers(0, 5))
def test_neither_order_nor_names_decide_the_split(fakes: list[Fake], order, seed: int) -> None:
    first = manifest_of(fakes, seed=seed)
    shuffled = order.sample(fakes, len(fakes))
    second = manifest_of(shuffled, seed=seed)
    assert split_by_name(second) == split_by_name(first)
    assert second.fingerprint == first.fingerprint
    renamed = manifest_of([replace(fake, name=f"x{fake.name}") for fake in fakes], seed=seed)
    assert [row.split for row in renamed.rows] == [row.split for row in first.rows]
    assert renamed.fingerprint == first.fingerprint


@settings(max_examples=40, deadline=None)
@given(fakes=with_copies(), seed=st.integers(0, 5))
def test_copies_stay_on_one_side_and_every_class_is_everywhere(fakes: list[Fake], seed: int) -> None:
    manifest = manifest_of(fakes, seed=seed)
    sides: dict[str, set[str]] = {}
    for row in manifest.rows:
        sides.setdefault(row.sha256, set()).add(row.split)
        assert manifest.rows[row.duplicate_group].sha256 == row.sha256
        assert row.duplicate_group <= row.id
    assert all(len(splits) == 1 for splits in sides.values())
    assert all(count >= 1 for split in manifest.counts().values() for count in split.values())


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.tuples(*[st.integers(3, 60)] * 3),
    test=st.sampled_from([0.1, 0.15, 0.2, 0.29]),
    validation=st.sampled_from([0.1, 0.15, 0.25]),
)
def test_each_class_gets_its_share_to_a_picture(sizes: tuple[int, ...], test: float, validation: float) -> None:
    fakes = [
        Fake(f"{label}{n}", label, f"{label}{n}")
        for label, size in zip(CLASSES, sizes, strict=True)
        for n in range(size)
    ]
    manifest = manifest_of(fakes, test_fraction=test, validation_fraction=validation)
    counts = manifest.counts()
    for split, fraction in (("test", test), ("validation", validation)):
        for label, size in zip(CLASSES, sizes, strict=True):
            assert abs(counts[split][label] - fraction * size) < 1
        if min(sizes) * fraction >= 1:  # no class needed a seat beyond its share
            assert abs(sum(counts[split].values()) - fraction * sum(sizes)) <= 0.5 + 1e-9


@settings(max_examples=40, deadline=None)
@given(fakes=with_copies(), order=st.randoms(use_true_random=False), seed=st.integers(0, 5))
def test_smaller_parts_of_train_lie_within_larger_ones_and_cut_no_group(fakes: list[Fake], order, seed: int) -> None:
    whole = manifest_of(fakes, seed=seed)
    larger = set(whole.indices("train").tolist())
    for fraction in (0.7, 0.5, 0.25, 0.01):
        part = manifest_of(fakes, seed=seed, train_fraction=fraction)
        kept = set(part.indices("train").tolist())
        assert kept <= larger
        larger = kept
        for split in ("validation", "test"):
            np.testing.assert_array_equal(part.indices(split), whole.indices(split))
        assert part.training_rows == [replace(row, split=part.rows[row.id].split) for row in whole.training_rows]
        assert all(part.counts()["train"].values())
        trained, unused = ({row.sha256 for row in part.rows if row.split == split} for split in ("train", UNUSED))
        assert not trained & unused
        assert part.fingerprint == whole.fingerprint
        shuffled = manifest_of(order.sample(fakes, len(fakes)), seed=seed, train_fraction=fraction)
        assert split_by_name(shuffled) == split_by_name(part)


@pytest.mark.parametrize(("fraction", "each"), [(0.999, 42), (0.5, 21), (0.25, 11), (0.1, 4), (1e-6, 1)])
def test_each_class_is_trained_on_by_its_part(fraction: float, each: int) -> None:
    counts = manifest_of(plain(60), train_fraction=fraction).counts()
    assert counts["train"] == dict.fromkeys(CLASSES, each)
    assert counts["validation"] == counts["test"] == dict.fromkeys(CLASSES, 9)
    assert counts.get(UNUSED, dict.fromkeys(CLASSES, 0)) == dict.fromkeys(CLASSES, 42 - each)
    assert (UNUSED in counts) == (each < 42)


def test_another_seed_leaves_others_aside() -> None:
    parts = [manifest_of(plain(60, split="train"), train_fraction=0.5, seed=seed) for seed in (0, 1)]
    assert len({tuple(part.indices("train").tolist()) for part in parts}) == 2


def test_a_part_of_a_given_train_split_keeps_copies_together() -> None:
    shared = [Fake(f"{split}/s{n}", "cat", f"s{n}", split) for split in ("train", "test") for n in range(30)]
    twice = [Fake(f"{copy}/{n}", "dog", f"twice {n}", "train") for copy in "ab" for n in range(20)]
    fakes = [*plain(5, split="test"), *plain(4, ("bird",), split="train"), *shared, *twice]
    splits = split_by_name(manifest_of(fakes, train_fraction=0.5))
    assert {splits[f"train/s{n}"] for n in range(30)} == {"train", UNUSED}
    assert {splits[f"test/s{n}"] for n in range(30)} == {"test"}
    assert all(splits[f"a/{n}"] == splits[f"b/{n}"] for n in range(20))


def test_what_is_left_aside_survives_the_file(tmp_path: Path) -> None:
    manifest = manifest_of(plain(10), train_fraction=0.5)
    manifest.write(tmp_path / "manifest.csv")
    again = Manifest.read(tmp_path / "manifest.csv", root=ROOT, classes=CLASSES, fingerprint=manifest.fingerprint)
    assert again == manifest
    assert sum(again.counts()[UNUSED].values()) > 0


def test_the_split_is_the_same_on_every_machine() -> None:
    manifest = manifest_of(plain(4))
    assert manifest.fingerprint == "42c073cd69f0970fd1f22764ec88ce23c824adf2b04e0e6330b4898ef147cc43"
    assert " ".join(row.split[:2] for row in manifest.rows) == "tr tr te va va te tr tr te va tr tr"


def test_the_seed_decides_the_split_but_not_the_fingerprint() -> None:
    fakes = plain(30)
    first, again, other = (manifest_of(fakes, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert split_by_name(first) != split_by_name(other)
    assert first.fingerprint == other.fingerprint


def test_the_fingerprint_changes_with_content_label_given_split_and_number() -> None:
    fakes = plain(5, split="train") + plain(2, split="test")
    changes = ({"content": "new"}, {"label": "dog"}, {"split": "test"})
    variants = [[replace(fakes[0], **change), *fakes[1:]] for change in changes] + [fakes[1:], [*fakes, fakes[0]]]
    assert len({manifest_of(variant).fingerprint for variant in [fakes, *variants]}) == 6


def test_small_classes() -> None:
    sizes = {"bird": 3, "cat": 2, "dog": 1}
    fakes = [Fake(f"{label}{n}", label, f"{label}{n}") for label, size in sizes.items() for n in range(size)]
    assert manifest_of(fakes).counts() == {
        "train": {"bird": 1, "cat": 1, "dog": 1},
        "validation": {"bird": 1, "cat": 1, "dog": 0},
        "test": {"bird": 1, "cat": 0, "dog": 0},
    }


def test_a_class_of_pairs_is_still_in_every_split() -> None:
    fakes = plain(10, ("cat", "dog")) + [Fake(f"b{n}", "bird", f"bird {n // 2}") for n in range(6)]
    assert {split: classes["bird"] for split, classes in manifest_of(fakes).counts().items()} == {
        "train": 2,
        "validation": 2,
        "test": 2,
    }


def test_one_file_under_two_labels_stays_on_one_side() -> None:
    fakes = plain(10) + [Fake(f"{label}/same{n}", label, f"same {n}") for label in ("cat", "dog") for n in range(20)]
    splits = split_by_name(manifest_of(fakes))
    assert all(splits[f"cat/same{n}"] == splits[f"dog/same{n}"] for n in range(20))
    assert len({splits[f"cat/same{n}"] for n in range(20)}) == 3


def test_validation_is_cut_out_of_a_given_train_split_and_keeps_clear_of_the_test() -> None:
    shared = [Fake(f"{split}/s{n}", "cat", f"s{n}", split) for split in ("train", "test") for n in range(30)]
    fakes = plain(20, split="train") + plain(5, split="test") + shared
    manifest = manifest_of(fakes, validation_fraction=0.3)
    splits = split_by_name(manifest)
    assert all((splits[fake.name] == "test") == (fake.split == "test") for fake in fakes)
    assert {splits[f"train/s{n}"] for n in range(30)} == {"train"}
    assert manifest.counts()["validation"] == {"bird": 6, "cat": 15, "dog": 6}  # of cats 0.3 · (20 + 30)


def test_test_is_cut_out_of_given_train_and_validation_splits() -> None:
    fakes = plain(20, split="train") + plain(4, split="validation")
    splits = split_by_name(manifest_of(fakes, test_fraction=0.25))
    assert Counter(splits.values()) == {"train": 45, "validation": 12, "test": 15}
    assert all(splits[fake.name] == "validation" for fake in fakes if fake.split == "validation")


def test_three_given_splits_stay_as_they_are_whatever_copies_they_hold() -> None:
    fakes = [
        Fake(f"{split}/{label}{n}", label, f"{label}{n}", split)
        for split in ("train", "validation", "test")
        for label in CLASSES
        for n in range(4)
    ]
    assert split_by_name(manifest_of(fakes)) == {fake.name: fake.split for fake in fakes}


def test_pictures_without_a_split_count_as_train_where_others_have_one() -> None:
    fakes = plain(10) + plain(3, split="test")
    splits = split_by_name(manifest_of(fakes))
    assert {splits[fake.name] for fake in fakes if fake.split is None} == {"train", "validation"}


def test_validation_never_exceeds_its_bound() -> None:
    number = 40_000
    hashes = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(number)]
    labels = [f"c{n % 3}" for n in range(number)]
    splits = split_pictures(
        hashes, labels=labels, given=["train"] * number, groups=range(number), config=DataConfig(test_fraction=0.1)
    )
    assert Counter(splits) == {"train": 36_000 - MOST_VALIDATION, "validation": MOST_VALIDATION, "test": 4_000}
    shares = Counter(label for label, split in zip(labels, splits, strict=True) if split == "validation")
    assert set(shares.values()) == {833, 834}


def test_a_class_missing_from_test_shifts_nothing() -> None:
    complete = plain(6, split="train") + plain(3, split="test")
    without = [fake for fake in complete if (fake.label, fake.split) != ("cat", "test")]
    first, second = manifest_of(complete), manifest_of(without)
    label_of = dict(zip(split_by_name(first), first.labels().tolist(), strict=True))
    assert all(label_of[row.path] == label for row, label in zip(second.rows, second.labels().tolist(), strict=True))
    assert second.classes == CLASSES
    assert second.counts()["test"] == {"bird": 3, "cat": 0, "dog": 3}
    assert {row.label for row in second.rows if row.id in second.indices("test")} == {"bird", "dog"}


def test_unreadable_pictures_are_left_out_and_listed() -> None:
    fakes = plain(6)
    fakes[2] = replace(fakes[2], error="truncated")
    manifest = manifest_of(fakes)
    assert manifest.unreadable == ((fakes[2].name, "truncated"),)
    assert [row.id for row in manifest.rows] == list(range(17))
    assert fakes[2].name not in split_by_name(manifest)
    together = np.concatenate([manifest.indices(split) for split in ("train", "validation", "test")])
    assert sorted(together.tolist()) == list(range(17))


@pytest.mark.parametrize(
    ("fakes", "options", "message"),
    [
        (
            [replace(fake, error="broken") for fake in plain(2)[:5]] + plain(2)[5:],
            {"strict": True},
            r"^5 of 6 pictures cannot be read: None/bird/0.png \(broken\); .*; and 2 more\. ",
        ),
        ([replace(f, error="x") if f.label == "dog" else f for f in plain(3)], {}, "^no picture of 'dog' in pets can"),
        (plain(2), {}, "^6 pictures in 3 classes are too few to cut a test split"),
        (plain(3, split="test"), {}, "^no picture is meant for training"),
    ],
)
def test_what_cannot_be_split_is_refused_in_one_line(fakes: list[Fake], options: dict, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        manifest_of(fakes, **options)
    assert "\n" not in str(caught.value)


def test_paths_are_portable_inside_the_root_and_absolute_outside(tmp_path: Path) -> None:
    inside, outside = tmp_path / "set" / "a" / "1.png", tmp_path / "elsewhere" / "2.png"
    fakes = plain(3, ("cat",))
    places = [inside, outside, tmp_path / "set" / "3.png"]
    pictures = tuple(Picture(path.name, path, "cat", None) for path in places)
    source = Source("set", tmp_path / "set", pictures, ("cat",), ())
    manifest = build_manifest(source, [inspection(fake) for fake in fakes], DataConfig())
    assert [row.path for row in manifest.rows] == ["a/1.png", outside.as_posix(), "3.png"]
    assert [manifest.path(row.id) for row in manifest.rows] == places


NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1) | st.sampled_from(
    ['a,b".png', "two\nlines.png", "mac\rline.png", "\r\n", " ", "é/猫.png", "\udcff.png"]
)


@settings(max_examples=60, deadline=None)
@given(names=st.lists(NAMES, min_size=1, max_size=5), label=NAMES)
def test_any_name_survives_the_file(names: list[str], label: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    base = manifest_of(plain(3)).rows[0]
    rows = tuple(replace(base, id=place, path=name, label=label) for place, name in enumerate(names))
    manifest = Manifest(ROOT, (label,), rows, "print")
    path = tmp_path_factory.mktemp("run") / "manifest.csv"
    manifest.write(path)
    assert Manifest.read(path, root=ROOT, classes=(label,), fingerprint="print") == manifest
    assert [entry.name for entry in path.parent.iterdir()] == ["manifest.csv"]


@pytest.mark.parametrize(
    ("line", "column", "value", "fault"),
    [
        (0, 0, "identity", "line 1: the columns must be id,path,label,split,"),
        (2, 0, "7", "line 3: id is '7' instead of 1"),
        (3, 2, "cow", "line 4: 'cow' is not one of the 3 classes"),
        (1, 3, "exam", "line 2: split is 'exam' instead of train, validation, test"),
        (1, 4, "00ff", "line 2: sha256 is not 64 hexadecimal digits"),
        (4, 5, "-3", "line 5: width is '-3', not a number"),
        (4, 7, "99", "line 5: duplicate_group is '99', not an id up to its own"),
        (2, 1, "", "line 3: path is empty"),
        (2, slice(5, 8), "", "line 3: 5 values instead of 8"),
    ],
)
def test_a_damaged_file_is_refused_with_its_line(tmp_path: Path, line: int, column, value: str, fault: str) -> None:
    path = tmp_path / "manifest.csv"
    manifest = manifest_of(plain(3))
    manifest.write(path)
    with path.open(newline="") as stream:
        table = list(csv.reader(stream))
    assert table[0] == COLUMNS
    table[line][column] = value
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(table)
    with pytest.raises(RunError) as caught:
        Manifest.read(path, root=ROOT, classes=CLASSES, fingerprint="")
    assert fault in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_and_an_unfinished_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    with pytest.raises(RunError, match=r"manifest\.csv is missing: "):
        Manifest.read(path, root=ROOT, classes=CLASSES, fingerprint="")
    path.write_text(",".join(COLUMNS) + '\r\n0,"never closed')
    with pytest.raises(RunError, match="cannot be read"):
        Manifest.read(path, root=ROOT, classes=CLASSES, fingerprint="")
