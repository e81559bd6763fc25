"""What report and slides say follows from what happened: the clock, a refit, one way of confusing, an unopened test."""

import copy
import io
from collections.abc import Mapping
from typing import Any

import pytest
from pptx import Presentation

from darkroom.report.facts import Facts
from darkroom.report.slides import deck
from darkroom.report.story import steps_done, strongest, told, weakest, wrong
from reported import Reported, figures_of, invented, read, refitted, unopened, with_rivals

NAMES = ("cat", "dog", "owl")


@pytest.fixture
def contents(reported_run: Reported) -> dict[str, Any]:
    return invented(reported_run.run, NAMES, right=1)


def shown(contents: Mapping[str, Any], reported: Reported | None = None) -> str:
    """All words of the deck and its notes, on one line."""
    figures = figures_of(reported.run) if reported else {}
    presentation = Presentation(io.BytesIO(deck(Facts(contents), figures)[0]))
    words = []
    for slide in presentation.slides:
        frames = [shape.text_frame for shape in slide.shapes if shape.has_text_frame]
        frames += [cell.text_frame for shape in slide.shapes if shape.has_table for cell in shape.table.iter_cells()]
        words += [frame.text for frame in frames] + [slide.notes_slide.notes_text_frame.text]
    return " ".join(" ".join(words).split())


@pytest.mark.parametrize(
    ("planned", "done", "steps", "early", "clock", "said"),
    [
        (5, 5, 45, False, "", "45 steps of 16 pictures, in 5 epochs, as planned"),
        (1, 1, 9, False, "", "9 steps of 16 pictures, in 1 epoch, as planned"),
        (9, 5, 45, True, "", "45 steps of 16 pictures, in 5 epochs of the 9 epochs planned"),
        (9, 1, 4, False, "shortened", "in 1 epoch (the clock has shortened the plan of 9 epochs)"),
        (3, 7, 61, False, "lengthened", "in 7 epochs (the clock has lengthened the plan of 3 epochs)"),
    ],
)
def test_steps_and_epochs_are_those_that_were_done(
    contents: dict[str, Any], planned: int, done: int, steps: int, early: bool, clock: str, said: str
) -> None:
    training = contents["config"]["training"]
    training["settings"] |= {"epochs": planned, "batch_size": 16}
    training["result"] |= {"epochs": done, "steps": steps, "stopped_early": early}
    contents["insights"]["time"]["clock"] = clock
    facts = Facts(contents)
    assert said in told(steps_done(facts), facts.tell)
    assert said in read(contents)


def test_a_refit_is_told_everywhere(contents: dict[str, Any], reported_run: Reported) -> None:
    text, slides = read(refitted(contents)), shown(refitted(contents), reported_run)
    for said in (
        "fitted on validation for the network before the refit",
        "2,345 pictures",
        "27 steps in 61 seconds",
        "and have then been trained on too",
        "7 pictures that trained the network have a copy in test",
        "[training, with the refit], [2.0 minutes]",
    ):
        assert said in text, said
    assert "whose weights were kept" not in text
    for said in (
        "was trained anew",
        "refit on 2,345 pictures",
        "fitted on validation for the network before the refit",
    ):
        assert said in slides, said
    assert "was kept" not in slides
    assert "validation: both" in slides
    for words in (read(contents), shown(contents)):
        assert "refit" not in words


@pytest.mark.parametrize(
    ("mistakes", "changes", "said"),
    [
        (9, {"there": 4, "back": 0}, "cat taken for dog"),
        (9, {"there": 4, "back": 1}, "cat and dog taken for each other"),
        (9, {"there": 1, "back": 0, "n": 1, "stands_out": False}, ""),
        (1, {"there": 1, "back": 0, "n": 1, "stands_out": False}, ""),
    ],
)
def test_what_is_confused_is_told_one_way_or_both(
    contents: dict[str, Any], mistakes: int, changes: dict[str, Any], said: str
) -> None:
    contents["insights"]["mistakes"]["n"] = mistakes
    contents["insights"]["confused"]["both"] |= {"one": "cat", "other": "dog", "n": 5, "stands_out": True, **changes}
    assert wrong(Facts(contents)) == said
    for words in (read(contents), shown(contents)):
        assert ("no two classes stand out" in words) == (not said and mistakes > 1)
        assert ("taken for each other" in words) == ("each other" in said)
    assert ("1 mistake" in shown(contents)) == (not said and mistakes == 1)


@pytest.mark.parametrize(
    ("alike", "best", "worst"),
    [
        ((1, 2, 2), "2 classes are without a mistake.", "the weakest class is dog with an F1-score of 50.0 %"),
        ((2, 1, 1), "owl is recognised best, with an F1", "the lowest F1-score is 50.0 %, that of 2 classes"),
        ((1, 2, 0), "2 classes are recognised best, with an F1", "the weakest class is dog"),
        ((3, 3, 3), "No class has a mistake.", "that of 3 classes"),
    ],
)
def test_no_class_is_called_best_among_its_likes(
    contents: dict[str, Any], alike: tuple[int, int, int], best: str, worst: str
) -> None:
    contents["insights"]["alike"] = dict(zip(("lowest", "highest", "flawless"), alike, strict=True))
    contents["insights"]["ranking"] = ["dog", "cat", "owl"]
    contents["metrics"]["test"]["per_class"]["dog"]["f1"] = 0.5
    facts = Facts(contents)
    assert told(strongest(facts), facts.tell).startswith(best)
    assert worst in told(weakest(facts), facts.tell)


def test_validation_is_not_sold_as_a_test(contents: dict[str, Any], reported_run: Reported) -> None:
    changed = unopened(contents)
    text, slides = read(changed), shown(changed, reported_run)
    for words in (text, slides):
        assert "took no part in its training" not in words
        assert "fitted on these same pictures" in words
    assert "the test pictures have not been opened" in text
    assert "results on test: darkroom evaluate --split test" in text
    assert "[What would help next?], [To open the test split" in text
    assert "More test pictures" not in text
    assert "took no part in its training" in read(contents)


def test_an_interval_is_no_prediction(contents: dict[str, Any]) -> None:
    assert "holds the true accuracy in 95 % of such samples" in shown(contents)


def test_the_version_is_that_of_the_training(contents: dict[str, Any]) -> None:
    contents["config"]["versions"]["darkroom"] = "0.0.7"
    assert "with darkroom 0.0.7" in read(contents)
    assert "darkroom 0.0.7" in shown(contents)


@pytest.mark.parametrize(("random", "frozen"), [(False, True), (False, False), (True, False)])
def test_a_backbone_is_normalised_as_it_was_pre_trained(contents: dict[str, Any], random: bool, frozen: bool) -> None:
    changed = copy.deepcopy(contents)
    changed["config"]["network"] |= {"kind": "resnet50", "origin": {"random": random}}
    changed["config"]["data"]["preprocessing"]["crop_fraction"] = 0.875
    if frozen:
        changed["config"]["training"]["result"] |= {"epochs": 0, "best_epoch": 0}
    text = read(changed)
    assert "of the training pictures and dividing" not in text
    assert "bit for bit" not in text
    assert ("was trained by others" in text) == (not random)
    assert "of the training pictures and dividing" in read(contents)
    assert "bit for bit" in read(contents)


def test_what_was_not_done_is_not_told(contents: dict[str, Any], reported_run: Reported) -> None:
    settings = contents["config"]["training"]["settings"]
    plain = {name: 1.0 if name == "crop_scale" else 0 for name in settings["augmentation"]}
    settings |= {"label_smoothing": 0.0, "augmentation": plain, "dropout": 0.0, "accumulate": 1, "imbalance": "none"}
    text, slides = read(contents, figures_of(reported_run.run)), shown(contents, reported_run)
    for said in ("label smoothing", "augmented views", "dropout", "unequal classes", "whose gradients"):
        assert said not in text, said
    assert "made harder by augmentation" not in slides
    settings |= {"label_smoothing": 0.1, "augmentation": {**plain, "flip": True}, "dropout": 0.2}
    settings |= {"accumulate": 4, "imbalance": "weighted-loss"}
    text = read(contents, figures_of(reported_run.run))
    for said in (
        "label smoothing and is of augmented views",
        "[20 % of what",
        "[weighted loss]",
        "[each step in 4 parts",
    ):
        assert said in text, said
    assert "made harder by augmentation" in shown(contents, reported_run)


def test_labels_that_contradict_each_other_are_told(contents: dict[str, Any]) -> None:
    assert "one of the two labels is wrong" not in read(contents)
    contents["insights"]["data"] |= {"copies": 9, "conflicts": 4}
    assert "4 of them have a copy of another class" in read(contents)
    assert "copies with different labels: 4" in shown(contents)


def test_a_comparison_tells_how_all_of_it_is_made_again(contents: dict[str, Any]) -> None:
    compared = with_rivals(contents)
    compared["comparison"]["requested"] |= {"models": ["cnn", "local-dir:/home/a/w/resnet50"], "prefer": "latency"}
    text = read(compared)
    assert "#command[darkroom compare blobs --models cnn local-dir:resnet50 --minutes 15 --prefer latency]" in text
    assert "#command" not in read(contents)
