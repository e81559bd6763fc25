import hashlib
import io

import numpy as np
import pytest
from PIL import Image, ImageOps
from sklearn.datasets import load_digits

from darkroom.data.duplicates import FLAT, LARGEST_FAMILY, MOST_COMPARED, MOST_DIFFERENCE, group_duplicates
from darkroom.data.inspection import Inspection
from darkroom.preprocess import Preprocessing, load

THUMBNAIL = Preprocessing(8, 8, resize="stretch", interpolation="box", version=1)


def scene(seed: int, width: int = 120, height: int = 90) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


def seen(image: Image.Image, form: str = "PNG", **options: object) -> Inspection:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    content = stream.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    thumbnail = load(content, THUMBNAIL).tobytes()
    return Inspection(digest, len(content), *image.size, image.mode, form, 1, 1, thumbnail=thumbnail, error=None)


def shown(thumbnail: np.ndarray, name: object, *, size: tuple[int, int] = (64, 64)) -> Inspection:
    """An inspection by its thumbnail (8, 8, 3) alone."""
    digest = hashlib.sha256(str(name).encode()).hexdigest()
    content = thumbnail.astype(np.uint8).tobytes()
    return Inspection(digest, 1, *size, "RGB", "PNG", 1, 1, thumbnail=content, error=None)


def groups(*inspections: Inspection) -> list[int]:
    return group_duplicates(inspections).tolist()


COPIES = {
    "quality 30": lambda image: seen(image, "JPEG", quality=30),
    "quality 90": lambda image: seen(image, "JPEG", quality=90),
    "webp": lambda image: seen(image, "WEBP", quality=70),
    "double size": lambda image: seen(image.resize((240, 180), Image.Resampling.BICUBIC), "JPEG", quality=80),
    "half size": lambda image: seen(image.resize((60, 45), Image.Resampling.BICUBIC), "JPEG", quality=80),
    "palette": lambda image: seen(image.quantize(256)),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_picture_saved_again_is_a_copy(kind: str) -> None:
    originals = [scene(seed) for seed in range(20)]
    copies = [COPIES[kind](image) for image in originals]
    assert groups(*map(seen, originals), *copies) == [*range(20), *range(20)]


@pytest.mark.parametrize(
    "change",
    [
        ImageOps.mirror,
        ImageOps.invert,
        lambda image: image.rotate(8),
        lambda image: image.point(lambda value: value // 2),
        lambda image: image.convert("L"),
    ],
)
def test_another_picture_is_no_copy_however_like_it(change) -> None:
    assert groups(*(seen(image) for seed in range(10) for image in (scene(seed), change(scene(seed))))) == [*range(20)]


def test_flat_pictures_are_copies_only_by_their_bytes() -> None:
    white, paper = Image.new("RGB", (64, 64), "white"), Image.new("RGB", (64, 64), (255, 255, 253))
    dotted = white.copy()
    dotted.putpixel((3, 3), (0, 0, 0))
    larger = white.resize((128, 128))
    assert groups(*map(seen, (white, paper, dotted, larger, white))) == [0, 1, 2, 3, 0]


def test_differences_are_held_against_the_contrast() -> None:
    random_values = np.random.default_rng(0).integers(0, 2, (8, 8, 3))
    for contrast, step, is_copy in ((150, MOST_DIFFERENCE, True), (150, MOST_DIFFERENCE + 1, False), (20, 2, False)):
        base = 60 + contrast * random_values
        assert base.std() > FLAT
        assert groups(shown(base, 1), shown(base + step, 2)) == ([0, 0] if is_copy else [0, 1])


def test_other_proportions_are_another_picture() -> None:
    image = scene(3)
    stretched = image.resize((120, 60))
    assert groups(seen(image), seen(stretched)) == [0, 1]


def test_the_order_of_files_changes_no_group() -> None:
    images = [scene(seed) for seed in range(12)]
    inspections = [seen(image) for image in images] + [seen(image, "JPEG", quality=60) for image in images[:7]]
    inspections += [inspections[0], inspections[15]]
    reference = {frozenset(family) for family in families(inspections)}
    assert sorted(map(len, reference)) == [1] * 5 + [2] * 5 + [3, 3]
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(inspections)).tolist()
        shuffled = families([inspections[place] for place in order])
        assert {frozenset(order[place] for place in family) for family in shuffled} == reference


def families(inspections: list[Inspection]) -> list[list[int]]:
    found = group_duplicates(inspections).tolist()
    assert all(group == found.index(group) for group in found)  # named by the smallest index
    return [[place for place, group in enumerate(found) if group == name] for name in set(found)]


def test_a_long_chain_of_likenesses_is_no_family() -> None:
    base = np.random.default_rng(0).integers(0, 2, (8, 8, 3)) * 100
    short = [shown(base + place, place) for place in range(LARGEST_FAMILY)]
    assert set(groups(*short)) == {0}
    chain = [*short, shown(base + LARGEST_FAMILY, "one more"), short[5]]
    assert groups(*chain) == [*range(LARGEST_FAMILY + 1), 5]


def test_copies_are_found_across_blocks_of_the_comparison() -> None:
    generator = np.random.default_rng(1)
    others = [shown(generator.integers(0, 256, (8, 8, 3)), f"other {n}") for n in range(3000)]
    bases = generator.integers(0, 247, (200, 8, 8, 3))
    pictures, copies = ([shown(base + step, (n, step)) for n, base in enumerate(bases)] for step in (0, 8))
    assert groups(*others, *pictures, *copies) == [*range(3200), *range(3000, 3200)]


def test_above_the_bound_only_identical_files_are_grouped() -> None:
    image = seen(scene(0))
    again = seen(scene(0), "JPEG", quality=90)
    assert groups(image, again, image) == [0, 0, 0]
    fillers = [shown(np.zeros((8, 8, 3)), number) for number in range(MOST_COMPARED)]
    assert groups(image, again, image, *fillers)[:3] == [0, 1, 0]


def test_digits_are_not_taken_for_copies_of_each_other() -> None:
    images = (load_digits().images * 255 / 16).round()  # (1797, 8, 8)
    repeated = [shown(np.repeat(image[..., None], 3, axis=2), number) for number, image in enumerate(images)]
    assert groups(*repeated) == [*range(len(images))]


def test_unreadable_pictures_are_alone_and_nothing_has_no_groups() -> None:
    gone = Inspection("", 0, 0, 0, "", "", 0, 1, thumbnail=None, error="gone")
    assert groups(gone, gone) == [0, 1]
    assert groups() == []
