"""Minutes shared between candidates: what fits is done, what does not is named."""

import json

import pytest

from darkroom.comparison.plan import (
    ANSWERED,
    FIT_SECONDS,
    FROZEN_ALONE,
    FROZEN_PART,
    LEAST_EPOCHS,
    LEAST_SECONDS,
    OVERHEAD_SECONDS,
    SETTLE_SECONDS,
    Plan,
    Speed,
    Splits,
    fitting_seconds,
    frozen_seconds,
    measuring_seconds,
    opening_seconds,
    plan_frozen,
    plan_trainings,
    training_seconds,
)
from darkroom.config import TrainConfig

SPLITS = Splits(train=1000, validation=200, test=300)
FAST, SLOW = Speed("fast", 0.01, 0.02, 0.03), Speed("slow", 0.1, 0.2, 0.3)


def test_what_features_cost() -> None:
    rest = SETTLE_SECONDS + OVERHEAD_SECONDS + 0.02 * (2 * 200 + ANSWERED)
    plain, mirrored = rest + fitting_seconds(1000), rest + fitting_seconds(2000)
    assert frozen_seconds(FAST, SPLITS, mirrored=False) == pytest.approx(0.01 * 1200 + plain)
    assert frozen_seconds(FAST, SPLITS, mirrored=True) == pytest.approx(0.01 * 2200 + mirrored)


def test_a_last_layer_is_fitted_to_some_rows_several_times_and_to_all_once() -> None:
    assert fitting_seconds(1000) == pytest.approx(FIT_SECONDS * 6000)
    assert fitting_seconds(100_000) == pytest.approx(FIT_SECONDS * 125_000)


def test_pictures_are_answered_by_network_and_graph() -> None:
    assert measuring_seconds(0.1, 300) == pytest.approx(OVERHEAD_SECONDS + 0.1 * (600 + ANSWERED))
    assert training_seconds(500, 0.1, SPLITS) == pytest.approx(500 - measuring_seconds(0.1, 200))
    assert opening_seconds(0.1, SPLITS) == pytest.approx(measuring_seconds(0.1, 500))


def test_all_take_part_where_there_is_time() -> None:
    plan = plan_frozen([SLOW, FAST], SPLITS, seconds=3600)
    assert [stage.name for stage in plan.stages] == ["fast", "slow"]
    assert plan.mirrored
    assert not plan.left_out


def test_pictures_that_may_not_be_mirrored_are_not() -> None:
    plan = plan_frozen([SLOW, FAST], SPLITS, seconds=3600, mirrors=False)
    assert not plan.mirrored
    assert plan.left_out == ()


def test_all_of_the_time_is_there_where_nothing_follows() -> None:
    both = sum(frozen_seconds(speed, SPLITS, mirrored=False) for speed in (FAST, SLOW))
    plan = plan_frozen([SLOW, FAST], SPLITS, seconds=both / FROZEN_ALONE + 1, part=FROZEN_ALONE)
    assert [stage.name for stage in plan.stages] == ["fast", "slow"]


def test_mirror_images_are_left_out_first_then_the_dearest() -> None:
    both = sum(frozen_seconds(speed, SPLITS, mirrored=False) for speed in (FAST, SLOW))
    plan = plan_frozen([SLOW, FAST], SPLITS, seconds=both / FROZEN_PART + 1)
    assert [stage.name for stage in plan.stages] == ["fast", "slow"]
    assert not plan.mirrored
    plan = plan_frozen([SLOW, FAST], SPLITS, seconds=both / FROZEN_PART - 10)
    assert [stage.name for stage in plan.stages] == ["fast"]
    assert any("slow" in sentence and "--minutes" in sentence for sentence in plan.left_out)


def test_one_takes_part_whatever_it_costs() -> None:
    assert [stage.name for stage in plan_frozen([SLOW], SPLITS, seconds=1).stages] == ["slow"]
    assert not plan_frozen([], SPLITS, seconds=1).stages


def test_trainings_share_equally() -> None:
    plan = plan_trainings([FAST, SLOW], SPLITS, ours=True, seconds=3000)
    assert [(stage.name, stage.what) for stage in plan.stages] == [
        ("cnn", "from scratch"),
        ("fast", "fine-tuned"),
        ("slow", "fine-tuned"),
    ]
    assert all(stage.seconds == pytest.approx(1000) for stage in plan.stages)
    epoch = 0.03 * 1000 + 0.01 * 200
    left = 1000 - measuring_seconds(0.02, 200) - fitting_seconds(2000)
    assert plan.stages[1].epochs == pytest.approx(left / epoch)


def test_what_fits_no_epoch_is_left_out_and_leaves_its_share_to_the_others() -> None:
    plan = plan_trainings([FAST, SLOW], SPLITS, ours=True, seconds=600)
    assert [stage.name for stage in plan.stages] == ["cnn", "fast"]
    assert plan.stages[1].seconds == pytest.approx(300)
    assert plan.stages[1].epochs is not None
    assert plan.stages[1].epochs >= LEAST_EPOCHS
    assert "fine-tuning of slow" in plan.left_out[0]


def test_our_network_is_always_trained() -> None:
    assert [stage.name for stage in plan_trainings([], SPLITS, ours=True, seconds=1).stages] == ["cnn"]
    assert not plan_trainings([], SPLITS, ours=False, seconds=100).stages


def test_the_plan_is_told_as_a_table() -> None:
    first, *rest = plan_frozen([SLOW, FAST], SPLITS, seconds=10).lines()
    assert first.split() == ["network", "how", "time", "epochs"]
    assert "fast" in rest[0]
    assert rest[-1].startswith("left out")
    assert "the minutes cannot be kept: this takes" in rest[1]


def test_minutes_that_cannot_be_kept_are_told() -> None:
    plan = plan_trainings([], SPLITS, ours=True, seconds=-50)
    assert plan.overrun == pytest.approx(LEAST_SECONDS + OVERHEAD_SECONDS + 50)
    assert any("cannot be kept: this takes 1:27 more than is left" in line for line in plan.lines())
    assert not any("-" in line for line in plan.lines()), "no time is less than none"
    assert not any("cannot be kept" in line for line in plan_frozen([FAST], SPLITS, seconds=3600).lines())
    assert plan_trainings([], SPLITS, ours=False, seconds=-50).overrun == 0


def test_a_plan_is_written_and_read() -> None:
    for plan in (
        plan_frozen([SLOW, FAST], SPLITS, seconds=10),
        plan_trainings([FAST], SPLITS, ours=True, seconds=900),
    ):
        assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_the_arithmetic_that_was_measured_is_what_trainings_take() -> None:
    measured = Speed("fast", 0.1, 0.1, 0.1, "bf16", "channels-last", 2)
    config = TrainConfig(**measured.options)
    assert (config.precision, config.memory_format, config.threads) == ("bf16", "channels-last", 2)
