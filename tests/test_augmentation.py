"""Augmentation against slow and plain numpy versions that look for the parameters of each view."""

from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from darkroom.data.augmentation import (
    NONE,
    Augmentation,
    augment,
    colour_jitter,
    cutout,
    mix,
    random_resized_crop,
)

Pixels = npt.NDArray[np.uint8]


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int = 40, height: int = 7, width: int = 9) -> Pixels:
    return np.random.default_rng(3).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def as_pictures(views: Tensor) -> npt.NDArray[np.float32]:
    """(N, 3, H, W) -> (N, H, W, 3)."""
    pictures: npt.NDArray[np.float32] = views.permute(0, 2, 3, 1).numpy()
    return pictures


def shifted(picture: Pixels, down: int, right: int, *, most: int, mirrored: bool) -> Pixels:
    """Reflect-pad by `most`, cut a window out, and mirror it."""
    padded = np.pad(picture, ((most, most), (most, most), (0, 0)), mode="reflect")
    height, width = picture.shape[:2]
    window = padded[most + down : most + down + height, most + right : most + right + width]
    return window[:, ::-1] if mirrored else window


def places(original: Pixels, view: npt.NDArray[np.float32], *, most: int) -> list[tuple[int, int, bool]]:
    """All (down, right, mirrored) that make the view from the original."""
    moves = range(-most, most + 1)
    return [
        (down, right, mirrored)
        for down, right, mirrored in product(moves, moves, (False, True))
        if np.array_equal(shifted(original, down, right, most=most, mirrored=mirrored), view)
    ]


def test_zero_strength_changes_nothing() -> None:
    pixels = noise()
    views = augment(torch.from_numpy(pixels), NONE, seeded())
    assert views.dtype == torch.float32
    assert views.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(as_pictures(views), pixels)


def test_mirror_alone_takes_about_half() -> None:
    pixels = noise(200)
    views = as_pictures(augment(torch.from_numpy(pixels), Augmentation(flip=True), seeded()))
    found = [places(original, view, most=0) for original, view in zip(pixels, views, strict=True)]
    assert all(len(place) == 1 for place in found)
    mirrored = sum(place[0][2] for place in found)
    assert 70 <= mirrored <= 130


def test_translation_reflects_at_the_edges_and_reaches_every_place() -> None:
    pixels = noise(300)
    views = as_pictures(augment(torch.from_numpy(pixels), Augmentation(translate=2, flip=True), seeded()))
    found = [places(original, view, most=2) for original, view in zip(pixels, views, strict=True)]
    assert all(len(place) == 1 for place in found)
    assert {place[0] for place in found} == set(product(range(-2, 3), range(-2, 3), (False, True)))


def test_translation_further_than_the_picture_is_held_to_it() -> None:
    pixels = noise(20, height=4, width=5)
    views = augment(torch.from_numpy(pixels), Augmentation(translate=50), seeded())
    for original, view in zip(pixels, as_pictures(views), strict=True):
        assert {tuple(row) for row in view.reshape(-1, 3)} <= {tuple(row) for row in original.reshape(-1, 3)}


@pytest.mark.parametrize("side", [1, 4, 5])
def test_cutout_blanks_one_square_with_the_mean(side: int) -> None:
    pixels = noise(120, height=12, width=16)
    views = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    blanked = as_pictures(cutout(views, side, seeded()))
    areas = set()
    for original, view in zip(pixels, blanked, strict=True):
        changed = (view != original).any(axis=2)
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        mean = np.broadcast_to(original.mean(axis=(0, 1)), view[changed].shape)
        np.testing.assert_allclose(view[changed], mean, rtol=1e-4)
        assert changed.sum() == len(rows) * len(columns)  # a rectangle: a square, or what the edge leaves of it
        assert len(rows) <= side
        assert len(columns) <= side
        inside = 0 not in rows and 11 not in rows and 0 not in columns and 15 not in columns
        assert not inside or changed.sum() == side * side
        areas.add(int(changed.sum()))
    assert side * side in areas


def crop_by_hand(
    picture: npt.NDArray[np.float64], window: tuple[float, float, float, float]
) -> npt.NDArray[np.float64]:
    """Bilinear samples of (H, W) at pixel centres of a window (top, left, height, width) in pixels."""
    height, width = picture.shape
    top, left, tall, wide = window
    result = np.zeros_like(picture)
    for i, j in product(range(height), range(width)):
        y = np.clip(top + (i + 0.5) * tall / height - 0.5, 0, height - 1)
        x = np.clip(left + (j + 0.5) * wide / width - 0.5, 0, width - 1)
        y0, x0 = min(int(y), height - 2), min(int(x), width - 2)
        dy, dx = y - y0, x - x0
        upper = picture[y0, x0] * (1 - dx) + picture[y0, x0 + 1] * dx
        lower = picture[y0 + 1, x0] * (1 - dx) + picture[y0 + 1, x0 + 1] * dx
        result[i, j] = upper * (1 - dy) + lower * dy
    return result


def windows(count: int, size: int, smallest: float, seed: int) -> list[tuple[float, float, float, float]]:
    """Where each crop was cut, read off a picture that shows its own coordinates."""
    ramp = np.tile(np.arange(size, dtype=np.float32), (size, 1))
    coordinates = torch.from_numpy(np.stack([ramp.T, ramp, 0 * ramp])).expand(count, 3, size, size)
    views = random_resized_crop(coordinates, smallest, seeded(seed)).numpy()
    found = []
    middle = slice(size // 4, 3 * size // 4)  # away from the edges, where the ramp ends
    for rows, columns, _ in views:
        down, right = np.diff(rows[middle, size // 2]).mean(), np.diff(columns[size // 2, middle]).mean()
        centre = (size - 1) / 2
        tall, wide = down * size, right * size
        top = rows[middle, size // 2].mean() + 0.5 - tall / 2 - (np.arange(size)[middle].mean() - centre) * down
        left = columns[size // 2, middle].mean() + 0.5 - wide / 2 - (np.arange(size)[middle].mean() - centre) * right
        found.append((float(top), float(left), float(tall), float(wide)))
    return found


def test_crop_samples_a_window_bilinearly() -> None:
    size, count = 16, 6
    pictures = np.random.default_rng(1).uniform(0, 255, (count, 3, size, size))
    views = random_resized_crop(torch.from_numpy(pictures.astype(np.float32)), 0.3, seeded(5)).numpy()
    for picture, view, window in zip(pictures, views, windows(count, size, 0.3, 5), strict=True):
        for channel in range(3):
            np.testing.assert_allclose(view[channel], crop_by_hand(picture[channel], window), atol=0.05)


@pytest.mark.parametrize("smallest", [0.08, 0.5, 0.95])
def test_crop_keeps_the_area_that_was_asked_for(smallest: float) -> None:
    found = np.array(windows(400, 16, smallest, 2)) / 16
    top, left, tall, wide = found.T
    assert (tall * wide >= smallest - 1e-3).all()
    assert (tall * wide <= 1 + 1e-3).all()
    assert (tall * wide).max() > 1 - 0.1 * (1 - smallest) - 0.01
    assert (tall * wide).min() < smallest + 0.1 * (1 - smallest)
    assert ((wide / tall) > 0.749).all()
    assert ((wide / tall) < 1.335).all()
    assert (top > -1e-3).all()
    assert (top + tall < 1 + 1e-3).all()
    assert (left > -1e-3).all()
    assert (left + wide < 1 + 1e-3).all()
    assert np.ptp(top) > 0.5 * (1 - tall.min())  # it does move about


def test_crop_of_everything_changes_nothing() -> None:
    views = torch.from_numpy(noise(5)).permute(0, 3, 1, 2).float()
    torch.testing.assert_close(random_resized_crop(views, 1.0, seeded()), views, atol=0.01, rtol=0)


def test_colour_jitter_by_hand() -> None:
    pixels = noise(10)
    views = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    factors = 1 + 0.4 * (torch.rand(3, 10, 1, 1, 1, generator=seeded(4)) * 2 - 1).numpy().reshape(3, 10)
    result = as_pictures(colour_jitter(views, 0.4, seeded(4)))
    for number, original in enumerate(pixels.astype(np.float64)):
        brightness, contrast, saturation = factors[:, number]
        by_hand = original * brightness
        by_hand = by_hand.mean() + (by_hand - by_hand.mean()) * contrast
        grey = by_hand.mean(axis=2, keepdims=True)
        by_hand = np.clip(grey + (by_hand - grey) * saturation, 0, 255)
        np.testing.assert_allclose(result[number], by_hand, atol=0.01)


def test_colour_jitter_of_no_strength_changes_nothing() -> None:
    views = torch.from_numpy(noise(5)).permute(0, 3, 1, 2).float()
    torch.testing.assert_close(colour_jitter(views, 0.0, seeded()), views, atol=0.01, rtol=0)


STRENGTHS = st.builds(
    Augmentation,
    flip=st.booleans(),
    translate=st.integers(0, 9),
    cutout=st.integers(0, 12),
    crop_scale=st.floats(0.05, 1),
    colour_jitter=st.floats(0, 1),
    mixup=st.sampled_from([0.0, 0.01, 0.2, 1.0]),
    cutmix=st.sampled_from([0.0, 0.01, 1.0]),
)


@settings(max_examples=60, deadline=None)
@given(augmentation=STRENGTHS, seed=st.integers(0, 2**32 - 1))
def test_any_strength_keeps_range_and_probabilities_and_follows_the_seed(augmentation: Augmentation, seed: int) -> None:
    pixels = torch.from_numpy(noise(6))
    targets = torch.eye(3)[torch.arange(6) % 3]

    def once() -> tuple[Tensor, Tensor]:
        generator = seeded(seed)
        return mix(augment(pixels, augmentation, generator), targets, augmentation, generator)

    views, mixed = once()
    assert views.shape == (6, 3, 7, 9)
    assert views.isfinite().all()
    assert views.min() >= -1e-3
    assert views.max() <= 255 + 1e-3
    assert mixed.min() >= 0
    torch.testing.assert_close(mixed.sum(1), torch.ones(6))
    again = once()
    assert torch.equal(views, again[0])
    assert torch.equal(mixed, again[1])


def test_augmentation_leaves_global_randomness_and_its_input_alone() -> None:
    pixels = torch.from_numpy(noise(6))
    before, state = pixels.clone(), torch.get_rng_state()
    everything = Augmentation(True, 2, 3, 0.5, 0.3, 0.2, 1.0)
    generator = seeded()
    mix(augment(pixels, everything, generator), torch.eye(6), everything, generator)
    assert torch.equal(before, pixels)
    assert torch.equal(state, torch.get_rng_state())


def plain_pictures() -> tuple[Tensor, Tensor]:
    """Six pictures of one value each, 0, 10, … 50, and their one-hot targets."""
    values = torch.arange(6).float() * 10
    return values.view(6, 1, 1, 1).expand(6, 3, 8, 10).contiguous(), torch.eye(6)


@pytest.mark.parametrize("seed", range(5))
def test_mixup_blends_pictures_and_targets_alike(seed: int) -> None:
    views, targets = plain_pictures()
    mixed, shares = mix(views, targets, Augmentation(mixup=1.0), seeded(seed))
    for view, share in zip(mixed, shares, strict=True):
        assert view.min() == view.max()
        assert view.mean().item() == pytest.approx(float(share @ torch.arange(6).float() * 10), abs=1e-3)
    assert 0 < float(shares[0].max()) <= 1


@pytest.mark.parametrize("seed", range(8))
def test_cutmix_pastes_a_rectangle_whose_area_is_the_share(seed: int) -> None:
    views, targets = plain_pictures()
    mixed, shares = mix(views, targets, Augmentation(cutmix=1.0), seeded(seed))
    boxes = set()
    for number, (view, share) in enumerate(zip(mixed, shares, strict=True)):
        assert torch.equal(view[0], view[1])
        assert torch.equal(view[0], view[2])
        pasted = (view[0] != number * 10).numpy()
        rows, columns = np.flatnonzero(pasted.any(axis=1)), np.flatnonzero(pasted.any(axis=0))
        assert pasted.sum() == len(rows) * len(columns)
        if pasted.any():
            boxes.add((rows[0], rows[-1], columns[0], columns[-1]))
        counts = np.bincount((view[0].numpy() / 10).astype(int).ravel(), minlength=6) / 80
        np.testing.assert_allclose(share.numpy(), counts, atol=1e-6)
    assert len(boxes) <= 1  # one box for the batch


def test_both_mixings_take_turns() -> None:
    views, targets = plain_pictures()
    both = Augmentation(mixup=1.0, cutmix=1.0)
    blended = 0
    for seed in range(40):
        mixed, _ = mix(views, targets, both, seeded(seed))
        blended += int(all(view.min() == view.max() for view in mixed) and not torch.equal(mixed, views))
    assert 8 <= blended <= 32


def test_beta_shares_have_the_right_spread() -> None:
    views, targets = plain_pictures()
    for alpha in (0.2, 1.0):
        shares = []
        for seed in range(400):
            _, mixed = mix(views, targets, Augmentation(mixup=alpha), seeded(seed))
            shares.append(float(mixed.max(1).values.min()))
        spread = float(np.mean([4 * share * (1 - share) for share in shares if share < 1]))
        wanted = 4 * alpha / (2 * (2 * alpha + 1))  # E[4 x (1 - x)] of Beta(alpha, alpha)
        assert spread == pytest.approx(wanted, rel=0.2)
