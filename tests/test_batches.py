"""Batches: what (seed, epoch, step) determines, what an epoch holds, and the statistics of the training split."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from darkroom.data.augmentation import Augmentation
from darkroom.data.batches import Batches, channel_statistics, generator_for, plain_batches, resident
from training import CPU, Drawn

EVERYTHING = Augmentation(True, 2, 3, 0.5, 0.3, 0.2, 1.0)


def batches(**changes: object) -> Batches:
    drawn = Drawn(count=90)
    made = Batches(
        pixels=drawn.pixels,
        labels=drawn.labels,
        indices=drawn.train,
        classes=3,
        batch_size=16,
        seed=0,
        device=CPU,
        augmentation=EVERYTHING,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def numbered(count: int, **changes: object) -> Batches:
    """Pictures whose every pixel is their own number."""
    numbers = np.arange(count, dtype=np.uint8)
    pixels = np.broadcast_to(numbers[:, None, None, None], (count, 4, 4, 3))
    return batches(
        pixels=pixels,
        labels=numbers.astype(np.int64) % 3,
        indices=np.arange(count),
        augmentation=Augmentation(),
        **changes,
    )


def shown(source: Batches, epoch: int) -> list[int]:
    return [int(view[0, 0, 0]) for views, _ in source.epoch(epoch) for view in views]


def test_same_seed_epoch_and_step_give_the_same_batch() -> None:
    for (one, targets), (other, same_targets) in zip(batches().epoch(3), batches().epoch(3), strict=True):
        assert torch.equal(one, other)
        assert torch.equal(targets, same_targets)


@pytest.mark.parametrize("start", [0, 1, 2, 3, 4])
def test_an_epoch_can_be_entered_at_any_step(start: int) -> None:
    source = batches()
    assert source.steps == 4
    whole, rest = list(source.epoch(2)), list(source.epoch(2, start=start))
    assert len(rest) == 4 - start
    for (one, targets), (other, same_targets) in zip(whole[start:], rest, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(targets, same_targets)


def test_epochs_seeds_and_steps_differ() -> None:
    first = next(batches().epoch(1))[0]
    assert not torch.equal(first, next(batches().epoch(2))[0])
    assert not torch.equal(first, next(batches(seed=1).epoch(1))[0])
    draws = {torch.rand(1, generator=generator_for(*key)).item() for key in np.ndindex(6, 6, 6)}
    assert len(draws) == 216  # no two steps share their random numbers, such as (1, 23) and (12, 3) written together
    assert generator_for(1, 23, 4).initial_seed() != generator_for(12, 3, 4).initial_seed()


@pytest.mark.parametrize("count", [1, 7, 16, 17, 23, 25, 60, 200])
def test_every_picture_once_an_epoch_in_parts_of_like_size(count: int) -> None:
    source = numbered(count)
    sizes = [len(views) for views, _ in source.epoch(5)]
    assert len(sizes) == source.steps
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= 1.5 * source.batch_size
    assert sorted(shown(source, 5)) == list(range(count))
    assert count < 7 or shown(source, 5) != shown(source, 6)


def test_only_the_given_pictures_are_shown_with_their_labels() -> None:
    source = replace(numbered(60), indices=np.array([3, 8, 40, 41]))
    for views, targets in source.epoch(1):
        numbers = views[:, 0, 0, 0].long()
        assert set(numbers.tolist()) <= {3, 8, 40, 41}
        assert torch.equal(targets.argmax(1), numbers % 3)
        assert torch.equal(targets.sum(1), torch.ones(len(targets)))


def test_balanced_sampling_shows_classes_alike() -> None:
    labels = np.array([0] * 180 + [1] * 15 + [2] * 5)
    source = replace(numbered(200), labels=labels, imbalance="balanced-sampling")
    counts = np.bincount([labels[number] for epoch in range(20) for number in shown(source, epoch)], minlength=3)
    assert counts.sum() == 20 * 200
    np.testing.assert_allclose(counts / counts.sum(), 1 / 3, atol=0.04)
    assert shown(source, 1) == shown(source, 1)


def test_balanced_sampling_with_a_class_that_has_no_pictures() -> None:
    source = replace(numbered(20), labels=np.array([0, 2] * 10), imbalance="balanced-sampling")
    assert len(shown(source, 1)) == 20


@pytest.mark.parametrize("processes", [2, 3, 5])
@pytest.mark.parametrize("imbalance", ["none", "balanced-sampling"])
def test_shares_make_up_the_batch_of_one_process(processes: int, imbalance: str) -> None:
    """With all augmentations, which mix pictures across shares."""
    whole = list(batches(imbalance=imbalance).epoch(3))
    parts = [list(batches(imbalance=imbalance, process=n, processes=processes).epoch(3)) for n in range(processes)]
    for step, (views, targets) in enumerate(whole):
        shares = [part[step] for part in parts]
        assert sum(len(share) for share, _ in shares) == len(views) == batches().pictures_in(step)
        for number, (share, wanted) in enumerate(shares):
            assert torch.equal(share, views[number::processes])
            assert torch.equal(wanted, targets[number::processes])
            assert share.is_contiguous(memory_format=torch.channels_last)


def test_pictures_that_lie_on_the_device_are_the_same_pictures() -> None:
    drawn = Drawn(count=90)
    indices = np.random.default_rng(1).permutation(90)[:50]
    source = batches(indices=indices)
    held = replace(source, resident=torch.from_numpy(drawn.pixels[indices]), pixels=np.zeros_like(drawn.pixels))
    for (one, targets), (other, same_targets) in zip(source.epoch(1), held.epoch(1), strict=True):
        assert torch.equal(one, other)
        assert torch.equal(targets, same_targets)


def test_pictures_lie_on_the_device_where_they_fit() -> None:
    drawn, indices = Drawn(count=90), np.array([7, 3, 88])
    size = 3 * 8 * 8 * 3
    held = resident(drawn.pixels, indices, CPU, free=2 * size)
    assert held is not None
    np.testing.assert_array_equal(held.numpy(), drawn.pixels[indices])
    assert resident(drawn.pixels, indices, CPU, free=2 * size - 1) is None
    assert resident(drawn.pixels, indices, CPU) is None, "a processor has them in memory already"


def test_plain_batches_are_the_pictures_in_order() -> None:
    drawn = Drawn()
    indices = np.array([5, 1, 30, 5, 2])
    parts = list(plain_batches(drawn.pixels, indices, batch_size=2, device=CPU))
    assert [len(part) for part in parts] == [2, 2, 1]
    np.testing.assert_array_equal(torch.cat(parts).permute(0, 2, 3, 1).numpy(), drawn.pixels[indices])


def test_statistics_come_from_the_given_pictures_only() -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (700, 5, 6, 3), dtype=np.uint8)
    train = random.permutation(700)[:600]  # more than one part of the sum
    mean, std = channel_statistics(pixels, train)
    np.testing.assert_allclose(mean, pixels[train].mean(axis=(0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(std, pixels[train].std(axis=(0, 1, 2)), rtol=1e-9)
    others = np.setdiff1d(np.arange(700), train)
    changed = pixels.copy()
    changed[others] = 0
    assert channel_statistics(changed, train) == (mean, std)


def test_a_constant_channel_can_be_divided_by() -> None:
    mean, std = channel_statistics(np.full((4, 3, 3, 3), 200, dtype=np.uint8), np.arange(4))
    assert mean == (200.0,) * 3
    assert std == (1.0,) * 3


def test_flips_alternate_from_epoch_to_epoch() -> None:
    slope = np.broadcast_to(np.arange(4, dtype=np.uint8)[None, None, :, None], (40, 4, 4, 3))  # bright on the right
    made = batches(pixels=slope, labels=np.zeros(40, np.int64), indices=np.arange(40), augmentation=Augmentation(True))
    made = replace(made, batch_size=40)

    def mirrored(epoch: int, source: Batches = made) -> list[int]:
        """Which pictures, by their place in the data, are shown the other way round."""
        order = source._order(np.random.default_rng([source.seed, epoch]))
        (views, _), *_ = source.epoch(epoch)
        return sorted(int(order[place]) for place, view in enumerate(views) if view[0, 0, 0] > view[0, 0, -1])

    first, second = mirrored(1), mirrored(2)
    assert sorted(first + second) == list(range(40))  # each picture one way in one epoch, the other way in the next
    assert mirrored(3) == first
    assert 8 < len(first) < 32
    assert mirrored(1, replace(made, seed=1)) != first
