"""From files and uploads to named answers."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import bundles
from darkroom.engines.decoding import Bounds
from darkroom.engines.onnx_runtime import OnnxRuntimeEngine
from darkroom.engines.prediction import Failure, Prediction, expand, predict_pictures, stream_predictions
from darkroom.errors import DarkroomError
from darkroom.preprocess import load

GREY = (110, 110, 110)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnnxRuntimeEngine]:
    folder = tmp_path_factory.mktemp("prediction") / "bundle"
    bundles.make_bundle(folder)
    with OnnxRuntimeEngine.open(folder, threads=1) as opened:
        yield opened


def test_each_picture_gets_its_own_answer_in_order(engine: OnnxRuntimeEngine, tmp_path: Path) -> None:
    file = tmp_path / "blue.webp"
    file.write_bytes(bundles.encoded((20, 20, 240), "WEBP"))
    sources = [
        ("one", bundles.encoded((240, 10, 10))),
        ("broken", bundles.encoded((0, 0, 0))[:60]),
        ("two", file),
        ("gone", tmp_path / "missing.png"),
        ("text", b"this is no picture"),
        ("empty", b""),
        ("one", bundles.encoded((10, 240, 10), "JPEG")),
    ]
    answers = predict_pictures(engine, sources)
    assert [answer.name for answer in answers] == [name for name, _ in sources]
    assert [answer.label if isinstance(answer, Prediction) else None for answer in answers] == [
        "red", None, "blue", None, None, None, "green",
    ]  # fmt: skip
    for answer in answers:
        if isinstance(answer, Failure):
            assert answer.error
            assert "\n" not in answer.error


def test_a_prediction_is_what_the_engine_says_of_the_contracts_pixels(engine: OnnxRuntimeEngine) -> None:
    content = bundles.encoded((130, 200, 90), "JPEG", size=(101, 77))
    [answer] = predict_pictures(engine, [("x", content)])
    expected = engine.predict(load(content, bundles.CONTRACT)[None])[0]
    assert isinstance(answer, Prediction)
    assert dict(answer.probabilities) == dict(zip(bundles.CLASSES, expected.tolist(), strict=True))
    values = [probability for _, probability in answer.probabilities]
    assert values == sorted(values, reverse=True)
    assert (answer.label, answer.confidence) == answer.probabilities[0]


def test_below_the_threshold_it_is_not_sure(engine: OnnxRuntimeEngine) -> None:
    sure, unsure = predict_pictures(engine, [("a", bundles.encoded((250, 0, 0))), ("b", bundles.encoded(GREY))])
    assert isinstance(sure, Prediction)
    assert isinstance(unsure, Prediction)
    assert sure.sure
    assert sure.confidence >= 0.6
    assert not unsure.sure
    assert unsure.confidence < 0.6


def test_top_cuts_the_ranking_not_the_answer(engine: OnnxRuntimeEngine) -> None:
    sources = [("x", bundles.encoded((10, 240, 10)))]
    [full], [cut] = predict_pictures(engine, sources), predict_pictures(engine, sources, top=2)
    [large] = predict_pictures(engine, sources, top=99)
    assert isinstance(full, Prediction)
    assert isinstance(cut, Prediction)
    assert cut.probabilities == full.probabilities[:2]
    assert len(full.probabilities) == len(bundles.CLASSES)
    assert large == full


def test_the_bound_on_pixels_holds(engine: OnnxRuntimeEngine) -> None:
    content = bundles.encoded((10, 240, 10), size=(50, 40))
    [refused] = predict_pictures(engine, [("x", content)], bounds=Bounds(1999))
    [taken] = predict_pictures(engine, [("x", content)], bounds=Bounds(2000))
    assert isinstance(refused, Failure)
    assert "50×40" in refused.error
    assert isinstance(taken, Prediction)


def test_no_pictures_no_answers(engine: OnnxRuntimeEngine) -> None:
    assert predict_pictures(engine, []) == []
    [only] = predict_pictures(engine, [("x", b"broken")])
    assert isinstance(only, Failure)


def test_thousands_of_pictures_stream_in_bounded_memory(engine: OnnxRuntimeEngine) -> None:
    content = bundles.encoded((10, 240, 10), size=(12, 8))
    count = 2000  # whose pixels would take 2.3 MB for each thousand if they were kept
    tracemalloc.start()
    try:
        answered = sum(
            isinstance(answer, Prediction)
            for answer in stream_predictions(engine, (("x", content) for _ in range(count)))
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert answered == count
    assert peak < 2.2e6, peak


def make(folder: Path, *names: str) -> None:
    """Empty files."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_folders_are_searched_in_natural_order_without_housekeeping(tmp_path: Path) -> None:
    make(tmp_path, "10.png", "2.JPG", "a/1.heic", "notes.txt", ".hidden.png", ".git/x.png", "__MACOSX/2.png")
    make(tmp_path, ".ipynb_checkpoints/z.png")
    found = expand([str(tmp_path)])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["2.JPG", "10.png", "a/1.heic"]


def test_a_hidden_parent_hides_nothing(tmp_path: Path) -> None:
    make(tmp_path, ".cache/1.png")
    assert expand([str(tmp_path / ".cache")]) == [tmp_path / ".cache" / "1.png"]


def test_files_and_globs(tmp_path: Path) -> None:
    make(tmp_path, "10.png", "9.png", "odd.dat", "[1].png", "a/b/c.png")
    assert [path.name for path in expand([f"{tmp_path}/*.png"])] == ["9.png", "10.png", "[1].png"]
    assert expand([f"{tmp_path}/odd.dat"]) == [tmp_path / "odd.dat"]
    assert expand([f"{tmp_path}/[1].png"]) == [tmp_path / "[1].png"]
    assert expand([f"{tmp_path}/**/c.png"]) == [tmp_path / "a" / "b" / "c.png"]
    assert expand([f"{tmp_path}/9.png", f"{tmp_path}/*.png"])[0].name == "9.png"
    assert len(expand([f"{tmp_path}/9.png", f"{tmp_path}/*.png"])) == 3
    assert [path.name for path in expand([f"{tmp_path}/a*"])] == ["c.png"]


@pytest.mark.parametrize("pattern", ["missing.png", "missing/*.png", "empty"])
def test_a_pattern_that_names_nothing_is_told(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DarkroomError) as caught:
        expand([f"{tmp_path}/{pattern}"])
    assert pattern in str(caught.value)
    assert "\n" not in str(caught.value)


def test_many_classes_rank_like_numpy(engine: OnnxRuntimeEngine) -> None:
    colours = np.random.default_rng(3).integers(0, 256, (30, 3))
    contents = [bundles.encoded(tuple(int(value) for value in colour)) for colour in colours]
    answers = predict_pictures(engine, [(str(place), content) for place, content in enumerate(contents)])
    pixels = np.stack([load(content, bundles.CONTRACT) for content in contents])
    best = bundles.expected_probabilities(pixels).argmax(axis=1)
    assert [answer.label for answer in answers if isinstance(answer, Prediction)] == [
        bundles.CLASSES[place] for place in best
    ]
