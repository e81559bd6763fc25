"""Numbers get into a report by one way only: from a path in a run's files, formatted, and recorded."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from darkroom.errors import RunError
from darkroom.report.facts import STYLES, Fact, Facts, join, shown_as, split

FILES: dict[str, Any] = {
    "config": {
        "data": {"name": "blobs", "classes": ["blob 1", "blob 2"], "unreadable": [], "leaks": 0},
        "counts": {"train": {"blob 1": 1000, "blob 2": 500}, "test": {"blob 1": 7, "blob 2": 0}},
        "commit": None,
    },
    "metrics": {
        "test": {"accuracy": {"value": 0.9163}, "per_class": {"st. bernard": {"f1": 0.5}, "<a>": {"f1": 0.25}}}
    },
    "history": [{"epoch": 1.0}, {"epoch": 2.0}, {"epoch": 3.0}],
}


@pytest.fixture
def facts() -> Facts:
    return Facts(FILES)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metrics.test.accuracy.value", 0.9163),
        ("config.data.classes.0", "blob 1"),
        ("config.data.classes.-1", "blob 2"),
        ("history.1.epoch", 2.0),
        ("history.-1.epoch", 3.0),
        ("history.-3.epoch", 1.0),
        (join("metrics", "test", "per_class", "st. bernard", "f1"), 0.5),
        (join("metrics", "test", "per_class", "<a>", "f1"), 0.25),
        ("count:config.data.classes", 2),
        ("count:config.counts", 2),
        ("count:config.data.unreadable", 0),
        ("count:history", 3),
        ("sum:config.counts", 1507),
        ("sum:config.counts.test", 7),
        ("sum:config.counts.train.blob 1", 1000),
        ("darkroom.confidence", 0.95),
        ("darkroom.few", 5),
        ("config.data.leaks", 0),
        ("config.commit", None),
    ],
)
def test_a_path_leads_to_its_value(facts: Facts, path: str, value: Any) -> None:
    assert facts.value(path) == value


@pytest.mark.parametrize(
    "path",
    [
        "bundle.sha256",
        "metrics.test.accuracy.low",
        "metrics.validation",
        "metrics.test.accuracy.value.deeper",
        "config.data.name.deeper",
        "config.commit.deeper",
        "history.3.epoch",
        "history.-4.epoch",
        "history.last.epoch",
        "darkroom.colour",
        "darkroom.version",
    ],
)
def test_what_is_not_there_is_an_error_that_names_the_path(facts: Facts, path: str) -> None:
    for asked in (path, f"count:{path}", f"sum:{path}"):
        with pytest.raises(RunError) as caught:
            facts.tell(asked, "text")
        assert path in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not facts.has(path)
    assert facts.told == [], "what is not known was not told"


@pytest.mark.parametrize(
    ("path", "held"),
    [
        ("metrics.test.accuracy", True),
        ("config.data.leaks", True),
        ("config.data.unreadable", False),
        ("config.commit", False),
        ("comparison", False),
    ],
)
def test_nothing_and_zero_are_two_things(facts: Facts, path: str, held: bool) -> None:
    assert facts.has(path) is held


def test_what_is_told_is_recorded_in_its_order(facts: Facts) -> None:
    assert facts.tell("metrics.test.accuracy.value", "percent") == "91.6 %"
    assert facts.tell("count:history", "count") == "3"
    assert facts.tell("metrics.test.accuracy.value", "decimal") == "0.916"
    facts.value("config.data.leaks")
    facts.has("config.data.leaks")
    assert facts.told == [
        Fact("metrics.test.accuracy.value", "percent", 0.9163, "91.6 %"),
        Fact("count:history", "count", 3, "3"),
        Fact("metrics.test.accuracy.value", "decimal", 0.9163, "0.916"),
    ]


def test_a_style_that_nobody_knows_is_refused(facts: Facts) -> None:
    with pytest.raises(KeyError):
        facts.tell("count:history", "roman")
    assert facts.told == []


SHOWN: dict[str, list[tuple[Any, str]]] = {
    "percent": [
        (0.9163, "91.6 %"),
        (1, "100.0 %"),
        (4999 / 5000, "99.98 %"),
        (0.9996, "99.96 %"),
        (0.9994, "99.9 %"),
        (1 - 1e-7, "99.99999 %"),
        (0, "0.0 %"),
        (-0.0, "0.0 %"),
        (0.0004, "0.040 %"),
        (1 / 3000, "0.033 %"),
        (-0.05, "−5.0 %"),
    ],
    "whole percent": [(0.95, "95 %"), (0, "0 %"), (1.0, "100 %"), (0.996, "99.6 %"), (0.004, "0.40 %")],
    "points": [(0.0213, "2.1 points"), (0, "0.0 points"), (1e-5, "0.0010 points"), (1, "100.0 points")],
    "signed points": [
        (0.0123, "+1.2"),
        (-0.0123, "−1.2"),
        (0.0, "0.0"),
        (-1e-17, "0.0"),
        (1e-4, "+0.010"),
        (-1e-4, "−0.010"),
    ],
    "decimal": [
        (0.23456, "0.235"),
        (0, "0.000"),
        (1e-5, "0.000010"),
        (0.99997, "0.99997"),
        (1.0, "1.000"),
        (-1.5, "−1.500"),
        (12.0, "12.000"),
    ],
    "number": [
        (0.2, "0.2"),
        (15.0, "15"),
        (0.123456, "0.123"),
        (5e-4, "0.0005"),
        (0, "0"),
        (-0.5, "-0.5"),
        (999, "999"),
        (999.6, "1,000"),
        (1234.4, "1,234"),
        (-1234.4, "-1,234"),
        (1_234_567.0, "1,234,567"),
    ],
    "count": [(7, "7"), (1507, "1,507"), (0, "0"), (-3, "-3"), (1_000_000, "1,000,000")],
    "times": [(1, "1 time"), (0, "0 times"), (1507, "1,507 times")],
    "epochs": [(1, "1 epoch"), (30, "30 epochs")],
    "steps": [(1, "1 step"), (1507, "1,507 steps")],
    "mistakes": [(1, "1 mistake"), (12, "12 mistakes")],
    "pictures": [(1, "1 picture"), (0, "0 pictures")],
    "amount": [(0, "0"), (12_345, "12,345"), (2_340_000, "2.3 million"), (999_999, "999,999"), (4.1e9, "4.1 billion")],
    "millions": [(1_234_567, "1.2"), (0, "0.0"), (1280, "0.0013"), (12_345_678_900, "12,345.7")],
    "duration": [
        (0, "0 seconds"),
        (0.25, "0.25 seconds"),
        (61.4, "61 seconds"),
        (120, "2.0 minutes"),
        (5399, "90.0 minutes"),
        (9000, "2.5 hours"),
    ],
    "minutes": [(90, "1.5"), (0, "0.0"), (2, "0.033")],
    "joules": [(1234.5, "1.2 kJ"), (0, "0.0 kJ"), (4_321_000, "4,321.0 kJ"), (12, "0.012 kJ")],
    "megabytes": [(4_719_319, "4.7"), (0, "0.0"), (4700, "0.0047")],
    "gigabytes": [(8 * 2**30, "8 GiB"), (0, "0 GiB"), (2**29, "0.50 GiB")],
    "milliseconds": [(1.234, "1.2"), (0, "0.0"), (250, "250.0"), (0.0412, "0.041")],
    "probability": [(0.0123, "0.012"), (0.0009, "< 0.001"), (0, "< 0.001"), (1, "1.000"), (0.9999, "0.9999")],
    "shape": [([12, 12], "12×12"), ([128, 4, 4], "128×4×4"), ([4000, 3000], "4,000×3,000"), ([], "")],
    "date": [("2026-03-07T09:10:11+00:00", "7 March 2026"), ("2026-11-23T09:10:11+00:00", "23 November 2026")],
    "text": [("blob 1", "blob 1"), (0, "0"), ("", "")],
}


@pytest.mark.parametrize(
    ("style", "value", "shown"), [(style, *row) for style, examples in SHOWN.items() for row in examples]
)
def test_each_style_shows_values_as_readers_expect(style: str, value: Any, shown: str) -> None:
    assert shown_as(value, style) == shown


def test_every_style_has_its_examples() -> None:
    assert SHOWN.keys() == STYLES.keys()


@given(st.floats(min_value=-1e12, max_value=1e12, allow_nan=False))
def test_a_number_has_an_exponent_only_where_it_is_small(value: float) -> None:
    shown = shown_as(value, "number")
    assert ("e" in shown) <= (abs(value) < 1e-4)
    assert float(shown.replace(",", "")) == pytest.approx(value, rel=6e-3, abs=1e-300)


PARTS = st.lists(st.text("ab.<>~:-1 é猫\\/", min_size=1, max_size=8), min_size=1, max_size=5)


@given(PARTS)
@example(["per_class", "st. bernard", "f1"])
@example(["<a>", "b"])
@example(["a.>.b"])
@example(["a.>", "<.b"])
def test_split_undoes_join(parts: list[str]) -> None:
    assert split(join(*parts)) == parts


@given(PARTS)
def test_a_joined_path_leads_through_names_of_any_form(parts: list[str]) -> None:
    content: Any = 1
    for part in reversed(parts):
        content = {part: content}
    assert Facts({"metrics": content}).value(join("metrics", *parts)) == 1


def test_places_may_be_joined_as_numbers(facts: Facts) -> None:
    assert facts.value(join("history", 1, "epoch")) == 2.0
    assert split("insights.confused.pairs.0.true") == ["insights", "confused", "pairs", "0", "true"]


def test_words_are_no_way_for_numbers(facts: Facts) -> None:
    assert facts.words("config.data.name") == "blobs"
    for path in ("config.data.leaks", "metrics.test.accuracy.value", "config.data.classes"):
        with pytest.raises(TypeError, match="which is no text"):
            facts.words(path)
    assert facts.told == []


@given(st.floats(min_value=0, max_value=1).filter(lambda value: 1e-9 < value < 1 - 1e-9))
def test_no_share_is_called_none_or_all_that_is_neither(share: float) -> None:
    shown = float(shown_as(share, "percent").removesuffix(" %"))
    assert 0 < shown < 100
    assert shown == pytest.approx(100 * share, abs=0.051)
