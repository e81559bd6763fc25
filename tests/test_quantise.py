"""An int8 bundle says of itself only what its own answers show, and is not written where it loses too much."""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from scipy.special import softmax

from bundles import bundle_info
from darkroom import workflow
from darkroom.bundle import Bundle, Golden
from darkroom.cli import main
from darkroom.config import ExportConfig, ServeConfig
from darkroom.data.dataset import DataSet
from darkroom.engines.base import Answers, Engine, check_golden
from darkroom.engines.onnx_runtime import OnnxRuntimeEngine, open_session
from darkroom.errors import BundleError, DataError, EngineError, ExportError, UsageError
from darkroom.evaluation.calibration import fit_temperature, not_sure_threshold, probabilities
from darkroom.export import int8_bundle, onnx_bundle, quantise
from darkroom.export.int8_bundle import calibration_batches, compare_accuracy, export_int8, require_accurate
from darkroom.export.quantise import compare_throughput, convolutions, with_constant
from darkroom.runs import Predictions, Run
from darkroom.summary import int8_lines
from darkroom.web import create_app
from finished import Finished

Pixels = npt.NDArray[np.uint8]
ANYTHING = 100.0


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Speeds are not what is tested here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8_bundle, "TIMED_SECONDS", 0.0)
        yield


@pytest.fixture(scope="module", autouse=True)
def graph(finished_run: Finished, quick: None) -> Iterator[bytes]:
    """The fp32 graph of the run, which is not made anew: that takes longest."""
    graph = (finished_run.run.bundle / "model.onnx").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_bundle, "to_onnx", lambda *_: graph)
        yield graph


@pytest.fixture(scope="module")
def exported(finished_run: Finished, graph: bytes, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run that has an int8 bundle too; only to be read."""
    copied = finished_run.copy(tmp_path_factory.mktemp("int8") / "run")
    export_int8(copied.run, copied.dataset(), bound=ANYTHING)
    return copied


@pytest.fixture(scope="module")
def coarse(exported: Finished, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The same with an int8 bundle that is far worse than the network."""
    copied = exported.copy(tmp_path_factory.mktemp("coarse") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8_bundle, "quantise", damaged)
        export_int8(copied.run, copied.dataset(), bound=ANYTHING)
    return copied


def damaged(graph: bytes, batches: Iterable[Pixels]) -> bytes:
    """An int8 graph that says the first class of everything."""
    model = onnx.load_from_string(quantise.quantise(graph, batches))
    (bias,) = [array for array in model.graph.initializer if array.name.endswith("head.bias")]
    bias.CopyFrom(numpy_helper.from_array(np.array([1000, 0, 0], np.float32), bias.name))
    return bytes(model.SerializeToString())


@pytest.fixture
def copied(exported: Finished, tmp_path: Path) -> Finished:
    """A run with both bundles, to be changed."""
    return exported.copy(tmp_path / "run")


def int8_answers(run: Run, pixels: Pixels) -> Answers:
    """What the bundle says, opened and proved as a server does."""
    with OnnxRuntimeEngine.open(run.int8_bundle, threads=1) as engine:
        return engine.answer(np.ascontiguousarray(pixels))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a run, apart from what lies in folders of folders."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_convolutions_run_in_integers_but_for_the_first(exported: Finished, graph: bytes, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(exported.run.int8_bundle / "model.onnx", options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    quantised, others = convolutions(graph)
    assert len(quantised) >= 4
    assert kinds.count("QLinearConv") == len(quantised)
    assert kinds.count("Conv") == len(others) == 1


def test_the_graph_is_smaller_and_has_the_same_form(exported: Finished, graph: bytes) -> None:
    model = exported.run.int8_bundle / "model.onnx"
    sizes = Bundle.open(exported.run.int8_bundle).info.quantisation["bytes"]
    assert sizes == {"fp32": len(graph), "int8": model.stat().st_size}
    assert sizes["int8"] < 0.5 * sizes["fp32"]
    open_session(model, 1)  # refuses other inputs or outputs
    weights = {array.name: array.dims for array in onnx.load(model).graph.initializer}
    scales = [dims for name, dims in weights.items() if name.endswith("weight_scale")]
    assert len(scales) == len(convolutions(graph)[0])
    assert all(dims[0] > 1 for dims in scales), "a scale for each channel"
    codes = [numpy_helper.to_array(array) for array in onnx.load(model).graph.initializer if array.data_type == 3]
    assert max(np.abs(values.astype(int)).max() for values in codes) == 64, "7 bits, which overflow nowhere"


def test_it_lies_beside_the_bundle_in_fp32_and_changes_nothing_else(finished_run: Finished, exported: Finished) -> None:
    before, after = contents(finished_run.run.folder), contents(exported.run.folder)
    new = {name: content for name, content in after.items() if before.get(name) != content}
    assert {name for name in new if Path(name).parent.name != "bundle-int8"} == {"metrics.json"}
    before_metrics = json.loads(before["metrics.json"])
    assert exported.run.read_metrics() == {**before_metrics, "test_openings": 2}, "int8 has answered the test pictures"
    assert not list(exported.run.folder.glob(".*"))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_accuracies_are_those_of_the_answers(coarse: Finished, split: str) -> None:
    run, dataset, info = coarse.run, coarse.dataset(), Bundle.open(coarse.run.int8_bundle).info
    ids = dataset.manifest.indices(split)
    labels = dataset.manifest.labels()[ids]
    right = int8_answers(run, dataset.pixels[ids]).probabilities.argmax(axis=1) == labels
    fp32 = run.read_predictions(split).logits.argmax(axis=1) == labels
    assert right.mean() != fp32.mean(), "else this shows nothing"
    assert info.metrics[split]["accuracy"]["value"] == pytest.approx(right.mean())
    assert info.metrics[split]["n"] == len(ids)
    accuracy = info.quantisation["accuracy"][split]
    assert (accuracy["int8"], accuracy["n"]) == (pytest.approx(right.mean()), len(ids))
    assert accuracy["fp32"] == run.read_metrics()[split]["accuracy"]["value"]
    assert accuracy["lost_points"] == pytest.approx(100 * (fp32.mean() - right.mean()))


def test_temperature_and_threshold_are_fitted_to_its_own_logits(exported: Finished) -> None:
    run, dataset, info = exported.run, exported.dataset(), Bundle.open(exported.run.int8_bundle).info
    ids = dataset.manifest.indices("validation")
    labels, answers = dataset.manifest.labels()[ids], int8_answers(run, dataset.pixels[ids])
    assert info.temperature == pytest.approx(fit_temperature(answers.logits, labels), rel=1e-6)
    assert info.temperature != run.read_metrics()["temperature"]
    expected = not_sure_threshold(labels, probabilities(answers.logits, info.temperature)).value
    assert info.threshold == pytest.approx(expected, abs=1e-6)
    np.testing.assert_allclose(answers.probabilities, softmax(answers.logits / info.temperature, axis=1), atol=1e-5)


def test_golden_answers_are_those_of_the_int8_graph(exported: Finished) -> None:
    golden, fp32 = Bundle.open(exported.run.int8_bundle).golden, Bundle.open(exported.run.bundle).golden
    np.testing.assert_array_equal(golden.pixels, fp32.pixels)
    np.testing.assert_allclose(golden.logits, int8_answers(exported.run, golden.pixels).logits, atol=1e-6)
    assert np.abs(golden.logits - fp32.logits).max() > 1e-4, "it rounds"


def test_bundle_says_that_it_is_int8_and_how_it_was_made(exported: Finished, graph: bytes) -> None:
    info, fp32 = Bundle.open(exported.run.int8_bundle).info, Bundle.open(exported.run.bundle).info
    assert info.name == "blobs-cnn-int8"
    assert info.model == {**fp32.model, "arithmetic": "int8"}
    assert info.provenance == fp32.provenance
    assert (info.classes, info.preprocessing) == (fp32.classes, fp32.preprocessing)
    details = info.quantisation
    assert details["calibration"] == {"split": "train", "pictures": 126}
    assert details["convolutions"] == {"int8": len(convolutions(graph)[0]), "fp32": 1}
    assert [speed["batch_size"] for speed in details["throughput"]] == [64, 1]
    assert details["golden_tolerance"] == info.golden_tolerance == info.parity["tolerance"] == 0.05
    assert 0 <= info.parity["largest_difference"] <= 0.05
    assert info.parity["fp32_graph_with_network"]["largest_difference"] <= 1e-4
    assert fp32.quantisation == {}


def test_the_server_tells_of_it(exported: Finished) -> None:
    with OnnxRuntimeEngine.open(exported.run.int8_bundle, threads=1) as engine:
        told = create_app(engine, ServeConfig()).test_client().get("/api/v1/model").get_json()
        assert told["quantisation"] == engine.bundle.quantisation
        assert told["facts"]["arithmetic"] == "int8"


def test_exporting_again_gives_the_same_answers(copied: Finished) -> None:
    before = Bundle.open(copied.run.int8_bundle)
    after = export_int8(copied.run, copied.dataset(), bound=ANYTHING)
    np.testing.assert_array_equal(before.golden.logits, after.golden.logits)
    assert (before.info.temperature, before.info.metrics) == (after.info.temperature, after.info.metrics)


class Watched:
    """A pixel cache that remembers which pictures were asked for."""

    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels
        self.seen: set[int] = set()

    def __getitem__(self, ids: npt.NDArray[np.int64]) -> Pixels:
        self.seen |= set(ids.tolist())
        return self.pixels[ids]


def watched(dataset: DataSet) -> tuple[DataSet, Watched]:
    """The data set with such a cache."""
    cache = Watched(dataset.pixels)
    return replace(dataset, pixels=cache), cache  # type: ignore[arg-type]


def test_only_training_pictures_calibrate_and_each_batch_has_all_classes(exported: Finished) -> None:
    dataset = exported.dataset()
    numbered = replace(dataset, pixels=np.arange(len(dataset.manifest.rows)))  # each picture is its own id
    batches = list(calibration_batches(numbered))
    labels = dataset.manifest.labels()
    assert sorted(np.concatenate(batches).tolist()) == dataset.manifest.indices("train").tolist()
    assert all(set(labels[batch]) == {0, 1, 2} for batch in batches)
    assert max(map(len, batches)) <= 16


def test_many_training_pictures_are_not_all_taken(exported: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = exported.dataset()
    monkeypatch.setattr(int8_bundle, "CALIBRATION", 20)
    batches = list(calibration_batches(replace(dataset, pixels=np.arange(len(dataset.manifest.rows)))))
    ids = np.concatenate(batches)
    assert len(set(ids.tolist())) == 20
    assert set(dataset.manifest.labels()[ids]) == {0, 1, 2}


def test_a_test_split_that_was_never_opened_stays_closed(copied: Finished) -> None:
    metrics = copied.run.read_metrics()
    del metrics["test"]
    copied.run.write_metrics(metrics)
    dataset, cache = watched(copied.dataset())
    info = export_int8(copied.run, dataset, bound=ANYTHING).info
    assert set(info.metrics) == set(info.quantisation["accuracy"]) == {"validation"}
    assert cache.seen.isdisjoint(dataset.manifest.indices("test").tolist())
    assert cache.seen >= set(dataset.manifest.indices("validation").tolist())


def test_too_much_lost_is_refused_and_nothing_is_written(copied: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8_bundle, "quantise", damaged)
    before = contents(copied.run.folder)
    said = r"^int8 loses \d+\.\d\d points of accuracy on 27 validation pictures .* 0\.3 are allowed: .*--int8-bound"
    with pytest.raises(ExportError, match=said) as caught:
        workflow.export(copied.run, data_config=copied.config, config=ExportConfig(int8=True))
    assert "\n" not in str(caught.value)
    assert contents(copied.run.folder) == before
    lenient = ExportConfig(int8=True, int8_bound=ANYTHING)
    info = Bundle.open(workflow.export(copied.run, data_config=copied.config, config=lenient)).info
    assert info.quantisation["accuracy"]["validation"]["lost_points"] > 0.3, "allowed now, and told"
    assert info.quantisation["bound_points"] == ANYTHING


def said(labels: npt.NDArray[np.int64], wrong: slice) -> Predictions:
    """Predictions of two classes that are right but for some."""
    answers = labels.copy()
    answers[wrong] = 1 - answers[wrong]
    return Predictions(np.arange(len(labels)), labels, np.eye(2, dtype=np.float32)[answers])


def test_what_is_lost_is_counted_in_points_and_the_bound_itself_is_allowed() -> None:
    labels = np.arange(5000) % 2
    fp32 = said(labels, slice(0, 100))
    allowed = compare_accuracy(fp32, said(labels, slice(90, 205)))
    assert allowed == {
        "n": 5000,
        "fp32": 0.98,
        "int8": 0.977,
        "lost_points": 0.3,
        "only_fp32_right": 105,
        "only_int8_right": 90,
    }
    require_accurate(allowed, 0.3)
    with pytest.raises(ExportError, match=r"loses 0.32 points .* \(97.68 instead of 98.00 %\), 0.3 are allowed"):
        require_accurate(compare_accuracy(fp32, said(labels, slice(0, 116))), 0.3)
    gained = compare_accuracy(fp32, said(labels, slice(0, 50)))
    assert gained["lost_points"] == -1.0
    require_accurate(gained, 0.0)


def test_a_processor_that_computes_integers_wrongly_is_found(copied: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    def differing(graph: bytes, threads: int, *, optimised: bool = True) -> onnxruntime.InferenceSession:
        return open_session(graph if optimised else with_constant(graph, "temperature", 20.0), threads)

    monkeypatch.setattr(int8_bundle, "open_session", differing)
    before = contents(copied.run.folder)
    with pytest.raises(ExportError, match=r"computes the int8 graph wrongly .* 0.05 allowed: export without --int8"):
        export_int8(copied.run, copied.dataset(), bound=ANYTHING)
    after = contents(copied.run.folder)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert changed == {"metrics.json"}, "int8 has answered the test pictures"


def test_the_reference_of_that_proof_does_not_compute_in_integers(exported: Finished) -> None:
    model = exported.run.int8_bundle / "model.onnx"
    levels = [
        open_session(model, 1, optimised=optimised).get_session_options().graph_optimization_level
        for optimised in (True, False)
    ]
    assert levels[0] == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert levels[1] == onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL


class Off(Engine):
    """Answers that are off by so much in probability."""

    error = 0.03

    def run(self, pixels: Pixels) -> Answers:
        answers = np.full((len(pixels), 5), 0.2 + self.error, np.float32)
        return Answers(answers, answers)

    def close(self) -> None:
        """Nothing to close."""


def test_golden_answers_of_int8_have_the_tolerance_that_the_bundle_records() -> None:
    pixels, expected = np.zeros((1, 16, 24, 3), np.uint8), np.full((1, 5), 0.2, np.float32)
    golden = Golden((b"",), pixels, expected, expected)
    check_golden(Off(bundle_info(quantisation={"golden_tolerance": 0.05})), golden)
    with pytest.raises(EngineError, match=r"by 0.03 in probability, 0.02 allowed"):
        check_golden(Off(bundle_info(quantisation={"golden_tolerance": 0.02})), golden)
    with pytest.raises(EngineError, match=r"by 0.03 in probability, 0.001 allowed"):
        check_golden(Off(bundle_info()), golden)


@pytest.mark.parametrize("tolerance", [0.0, -1, 0.5, float("nan")])
def test_a_bundle_cannot_excuse_itself_from_the_proof(tolerance: float) -> None:
    with pytest.raises(BundleError, match="the golden tolerance is"):
        bundle_info(quantisation={"golden_tolerance": tolerance})


def convolution(channels: int, *, group: int = 1) -> bytes:
    """A graph of one convolution with so many channels in and out."""
    weights = numpy_helper.from_array(np.ones((channels, channels // group, 1, 1), np.float32), "weights")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", channels, 4, 4]) for name in ("x", "y")]
    node = helper.make_node("Conv", ["x", "weights"], ["y"], name="layer", group=group)
    graph = helper.make_graph([node], "graph", ends[:1], ends[1:], [weights])
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString())


def test_convolutions_of_the_picture_stay_as_they_are() -> None:
    assert convolutions(convolution(3)) == ([], ["layer"])
    assert convolutions(convolution(8)) == (["layer"], [])
    assert convolutions(convolution(3, group=3)) == ([], ["layer"])
    assert convolutions(convolution(8, group=8)) == (["layer"], []), "depthwise, of more than a picture"


def test_ranges_are_means_of_the_extremes_of_batches() -> None:
    model = onnx.load_from_string(convolution(8))
    model.graph.node.insert(0, helper.make_node("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT))
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", 8, 4, 4]))
    batches = [np.full((2, 8, 4, 4), value, np.uint8) for value in (100, 100, 160)]
    quantised = onnx.load_from_string(quantise.quantise(model.SerializeToString(), batches))
    (scale,) = [numpy_helper.to_array(array) for array in quantised.graph.initializer if array.name == "x_scale"]
    assert scale == pytest.approx(120 / 255)


def test_a_graph_without_anything_to_quantise_is_refused() -> None:
    with pytest.raises(ExportError, match="no convolution to quantise in the network: export it without --int8"):
        quantise.quantise(convolution(3), [])


def test_errors_of_the_quantiser_are_told_in_a_line_and_ours_pass(graph: bytes) -> None:
    with pytest.raises(ExportError, match=r"cannot quantise the graph \(.+\): export without --int8") as caught:
        quantise.quantise(graph, [])
    assert "\n" not in str(caught.value)

    def broken() -> Iterator[Pixels]:
        raise DataError("a picture is gone")
        yield

    with pytest.raises(DataError, match="a picture is gone"):
        quantise.quantise(graph, broken())


def test_a_constant_is_replaced_and_nothing_else(graph: bytes) -> None:
    changed = with_constant(graph, "temperature", 2.5)
    before, after = (onnx.load_from_string(model) for model in (graph, changed))
    (place,) = [place for place, array in enumerate(after.graph.initializer) if array.name == "temperature"]
    assert numpy_helper.to_array(after.graph.initializer[place]) == np.float32(2.5)
    after.graph.initializer[place].CopyFrom(before.graph.initializer[place])
    assert after == before
    with pytest.raises(ExportError, match="no constant warmth"):
        with_constant(graph, "warmth", 1.0)


class Session:
    """Takes its time, and keeps a diary."""

    def __init__(self, name: str, seconds: float, diary: list[tuple[str, tuple[int, ...]]]) -> None:
        self.name, self.seconds, self.diary = name, seconds, diary

    def run(self, outputs: Any, inputs: dict[str, Pixels]) -> None:
        self.diary.append((self.name, inputs["pixels"].shape))
        time.sleep(self.seconds)


def test_graphs_are_timed_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    diary: list[tuple[str, tuple[int, ...]]] = []
    sessions = {b"slow": Session("slow", 0.03, diary), b"fast": Session("fast", 0.01, diary)}
    monkeypatch.setattr(quantise, "open_session", lambda graph, threads: sessions[graph])
    pixels = np.zeros((3, 2, 2, 3), np.uint8)
    speed = compare_throughput({"fp32": b"slow", "int8": b"fast"}, pixels, batch_size=8, threads=2, seconds=0.0)
    assert diary == [("slow", (8, 2, 2, 3)), ("fast", (8, 2, 2, 3))] * 6, "five rounds after one that warms up"
    assert (speed["batch_size"], speed["threads"], speed["rounds"]) == (8, 2, 5)
    assert 1.5 < speed["ratio"]["int8"] < 4
    assert 8 / 0.06 < speed["pictures_a_second"]["fp32"] < 8 / 0.03 < speed["pictures_a_second"]["int8"] < 8 / 0.01


def test_more_seconds_are_more_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantise, "open_session", lambda graph, threads: Session("", 0.005, []))
    pixels = np.zeros((1, 2, 2, 3), np.uint8)
    speed = compare_throughput({"fp32": b"", "int8": b""}, pixels, batch_size=1, threads=1, seconds=0.3)
    assert 6 <= speed["rounds"] <= 30


def test_lines_for_people_tell_what_was_lost_and_gained() -> None:
    lost = {"n": 5000, "fp32": 0.889, "int8": 0.8876, "lost_points": 0.14}
    gained = {"n": 10000, "fp32": 0.8813, "int8": 0.8815, "lost_points": -0.02}
    speed = {"batch_size": 64, "threads": 2, "pictures_a_second": {"fp32": 1360.0, "int8": 3800.4}}
    details = {
        "accuracy": {"validation": lost, "test": gained},
        "bound_points": 0.3,
        "throughput": [speed | {"ratio": {"int8": 2.794}}],
        "bytes": {"fp32": 4_719_319, "int8": 1_251_140},
    }
    assert list(int8_lines(bundle_info(quantisation=details))) == [
        "validation  88.76 % of 5,000 pictures right, 88.90 % in fp32: 0.14 points lost (0.3 allowed)",
        "test        88.15 % of 10,000 pictures right, 88.13 % in fp32: 0.02 points gained",
        "batch 64    3,800 pictures a second, 1,360 in fp32: 2.79 times as many, on 2 threads",
        "graph       1.25 MB, 4.72 MB in fp32",
    ]


def exit_code(*arguments: str) -> Any:
    """What the program ends with."""
    with pytest.raises(SystemExit) as left:
        main(arguments)
    return left.value.code


def test_the_command_prints_the_folder_and_what_it_cost(
    copied: Finished, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["export", str(copied.run.folder), "--cache", str(copied.config.cache)]
    assert exit_code(*command, "--int8", "--int8-bound", "100") == 0
    folder, *lines = capsys.readouterr().out.splitlines()
    assert folder == str(copied.run.int8_bundle)
    assert lines == list(int8_lines(Bundle.open(copied.run.int8_bundle).info))
    assert exit_code("predict", folder, str(copied.run.samples), "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 10
    monkeypatch.setattr(int8_bundle, "quantise", damaged)
    for options, error in (([], "int8 loses"), (["--int8-bound", "101"], "--int8-bound is 101")):
        assert exit_code(*command, "--int8", *options) == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith(f"darkroom: error: {error}")


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"int8": True, "int8_bound": -0.1}, "--int8-bound is -0.1"),
        ({"int8": True, "int8_bound": float("nan")}, "--int8-bound is nan"),
        ({"int8_bound": 0.5}, "--int8-bound 0.5 bounds nothing without --int8"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(values: dict[str, Any], error: str) -> None:
    with pytest.raises(UsageError, match=error):
        ExportConfig(**values)


def test_a_new_run_in_the_folder_takes_the_int8_bundle_away(copied: Finished) -> None:
    copied.run.clear()
    assert not copied.run.int8_bundle.exists()
