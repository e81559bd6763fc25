"""The bundle answers as the network does, and says so only where that is true."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import torch
from scipy.special import softmax

from darkroom.bundle import Bundle
from darkroom.engines.base import Answers, Engine
from darkroom.engines.onnx_runtime import OnnxRuntimeEngine
from darkroom.errors import BundleError, DarkroomError, DataError, ExportError, RunError
from darkroom.export import onnx_bundle
from darkroom.export.onnx_bundle import TOLERANCE, Deployed, export_bundle, pick, to_onnx
from darkroom.models.stored import load_network, save_network
from darkroom.preprocess import load
from darkroom.runs import Run
from finished import CLASSES, SIDE, Finished

Pixels = npt.NDArray[np.uint8]


@pytest.fixture
def copied(finished_run: Finished, tmp_path: Path) -> Finished:
    """A run to change."""
    return finished_run.copy(tmp_path / "run")


@pytest.fixture
def exported(copied: Finished, monkeypatch: pytest.MonkeyPatch) -> Finished:
    """A run to change whose graph is not made anew, which takes longest."""
    graph = (copied.run.bundle / "model.onnx").read_bytes()
    monkeypatch.setattr(onnx_bundle, "to_onnx", lambda *_: graph)
    return copied


def answers_of_network(run: Run, pixels: Pixels) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Logits and tempered probabilities, straight from the stored weights."""
    with torch.no_grad():
        planes = torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float()
        logits = load_network(run)(planes).numpy()
    return logits, softmax(logits.astype(np.float64) / run.read_metrics()["temperature"], axis=1)


def bundle_bytes(run: Run) -> dict[str, bytes]:
    """Every file of the bundle."""
    return {path.name: path.read_bytes() for path in sorted(run.bundle.iterdir())}


def test_graph_takes_uint8_of_any_number_and_gives_both_outputs(finished_run: Finished) -> None:
    session = onnxruntime.InferenceSession(finished_run.run.bundle / "model.onnx")
    (taken,) = session.get_inputs()
    assert (taken.name, taken.type, taken.shape[1:]) == ("pixels", "tensor(uint8)", [SIDE, SIDE, 3])
    assert isinstance(taken.shape[0], str), "N is open"
    given = {node.name: (node.type, node.shape[1]) for node in session.get_outputs()}
    assert given == {"logits": ("tensor(float)", 3), "probabilities": ("tensor(float)", 3)}


@pytest.mark.parametrize("size", [1, 2, 3, 17, 40])
def test_bundle_answers_as_the_network(finished_run: Finished, size: int) -> None:
    pixels = np.random.default_rng(size).integers(0, 256, (size, SIDE, SIDE, 3), dtype=np.uint8)
    real = finished_run.dataset().pixels[:: 180 // size][:size]
    for batch in (pixels, real):
        logits, probabilities = answers_of_network(finished_run.run, batch)
        with OnnxRuntimeEngine.open(finished_run.run.bundle) as engine:
            answers = engine.answer(np.ascontiguousarray(batch))
        np.testing.assert_allclose(answers.logits, logits, atol=1e-4)
        np.testing.assert_allclose(answers.probabilities, probabilities, atol=TOLERANCE)


def test_parity_is_recorded_and_true(finished_run: Finished) -> None:
    run, dataset = finished_run.run, finished_run.dataset()
    bundle = Bundle.open(run.bundle)
    parity = bundle.info.parity
    assert parity["batch_sizes"] == [1, 3, 17]
    assert parity["tolerance"] == 1e-4
    assert 0 <= parity["largest_difference"] <= 1e-4
    assert parity["largest_difference"] != 0, "two programs never agree to the last bit"
    ids = dataset.manifest.indices("validation")
    with OnnxRuntimeEngine.open(run.bundle) as engine:
        for size in parity["batch_sizes"]:
            pixels = np.array(dataset.pixels[ids[:size]])
            _, expected = answers_of_network(run, pixels)
            assert np.abs(engine.predict(pixels) - expected).max() < 1e-4


@pytest.mark.parametrize("split", ["validation", "test"])
def test_accuracy_of_the_bundle_is_the_networks(finished_run: Finished, split: str) -> None:
    run, dataset = finished_run.run, finished_run.dataset()
    ids = dataset.manifest.indices(split)
    with OnnxRuntimeEngine.open(run.bundle) as engine:
        predicted = engine.predict(np.array(dataset.pixels[ids])).argmax(axis=1)
    accuracy = float((predicted == dataset.manifest.labels()[ids]).mean())
    assert accuracy == run.read_metrics()[split]["accuracy"]["value"]
    recorded = Bundle.open(run.bundle).info
    assert recorded.parity[split]["accuracy"] == accuracy
    assert recorded.parity[split]["n"] == len(ids)
    assert recorded.parity[split]["largest_logit_difference"] < 1e-3
    assert recorded.parity[split]["largest_difference"] < 1e-4
    assert recorded.metrics[split]["accuracy"] == run.read_metrics()[split]["accuracy"]


def test_bundle_says_what_it_is_and_where_it_came_from(finished_run: Finished) -> None:
    run = finished_run.run
    info, content, metrics = Bundle.open(run.bundle).info, run.read_config(), run.read_metrics()
    assert info.classes == CLASSES
    assert info.name == "blobs-cnn"
    assert info.preprocessing == finished_run.dataset().preprocessing
    assert (info.temperature, info.threshold) == (metrics["temperature"], metrics["threshold"])
    assert info.provenance["fingerprint"] == content["data"]["fingerprint"]
    assert info.provenance["seed"] == content["seed"]
    assert info.model["parameters"] == sum(value.numel() for value in load_network(run).parameters())


def test_golden_pictures_are_files_of_validation(finished_run: Finished) -> None:
    dataset, golden = finished_run.dataset(), Bundle.open(finished_run.run.bundle).golden
    validation = {dataset.manifest.path(int(id)).read_bytes(): int(id) for id in dataset.manifest.indices("validation")}
    assert len(golden.encoded) == 10
    assert set(golden.encoded) <= set(validation)
    labels = dataset.manifest.labels()
    assert {labels[validation[picture]] for picture in golden.encoded} == {0, 1, 2}, "every class is there"
    for picture, pixels in zip(golden.encoded, golden.pixels, strict=True):
        np.testing.assert_array_equal(load(picture, dataset.preprocessing), pixels)
    logits, probabilities = answers_of_network(finished_run.run, golden.pixels)
    np.testing.assert_allclose(golden.logits, logits, atol=1e-4)
    np.testing.assert_allclose(golden.probabilities, probabilities, atol=1e-5)


def test_samples_are_ten_files_of_test_from_all_classes(finished_run: Finished) -> None:
    dataset = finished_run.dataset()
    ids = {dataset.manifest.path(int(id)).read_bytes(): int(id) for id in dataset.manifest.indices("test")}
    samples = sorted(finished_run.run.samples.iterdir())
    assert len(samples) == 10
    for sample in samples:
        row = dataset.manifest.rows[ids[sample.read_bytes()]]
        assert sample.name == f"{row.label.replace('/', '_')}-{row.id}.png"
    labels = [dataset.manifest.rows[ids[sample.read_bytes()]].label for sample in samples]
    assert {labels.count(name) for name in CLASSES} == {3, 4}, "class after class"


def test_fewer_pictures_than_asked_for_are_all_picked_once(finished_run: Finished) -> None:
    dataset = finished_run.dataset()
    every = dataset.manifest.indices("test")
    assert sorted(pick(dataset, "test", 1000).tolist()) == every.tolist()
    labels = dataset.manifest.labels()
    assert sorted(labels[pick(dataset, "test", 3)].tolist()) == [0, 1, 2]


def test_exporting_again_gives_the_same_bundle_and_opens_no_test(copied: Finished) -> None:
    before, metrics = Bundle.open(copied.run.bundle).info, copied.run.metrics.read_bytes()
    export_bundle(copied.run, copied.dataset())
    after = Bundle.open(copied.run.bundle).info
    assert replace(after, parity={}, files={}) == replace(before, parity={}, files={})
    assert copied.run.metrics.read_bytes() == metrics, "export counts no opening"
    assert not list(copied.run.folder.glob(".*")), "nothing half-written is left"


def test_a_run_that_was_never_tested_has_a_bundle_without_test(exported: Finished) -> None:
    metrics = exported.run.read_metrics()
    del metrics["test"]
    exported.run.write_metrics(metrics)
    info = export_bundle(exported.run, exported.dataset()).info
    assert "test" not in info.metrics
    assert "test" not in info.parity


def refuse(copied: Finished, kind: type[DarkroomError], message: str) -> None:
    """Export must fail in one line and leave the bundle of before."""
    before = bundle_bytes(copied.run)
    with pytest.raises(kind, match=message) as caught:
        export_bundle(copied.run, copied.dataset())
    assert "\n" not in str(caught.value)
    assert bundle_bytes(copied.run) == before
    assert not list(copied.run.folder.glob(".*"))


def test_weights_that_changed_since_evaluation_are_refused(copied: Finished) -> None:
    scale_weights(copied.run, -1.0)
    refuse(copied, ExportError, r"probabilities on validation differ")


def test_weights_that_changed_without_changing_a_class_are_refused(copied: Finished) -> None:
    """The temperature was fitted for other logits."""
    scale_weights(copied.run, 1.3)
    refuse(copied, ExportError, r"probabilities on validation differ by .* from those of the evaluation")


def scale_weights(run: Run, factor: float) -> None:
    """Multiply the last layer, and with it all logits."""
    network = load_network(run)
    last = [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1]
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.mul_(factor)
    save_network(run, network.state_dict())


class Shifted(Deployed):
    """A graph that says something else than the network: the answers of the pictures, slightly brighter."""

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.network(pixels.permute(0, 3, 1, 2).float() + 0.2)
        return logits, torch.softmax(logits / self.temperature, dim=1)


def test_a_graph_that_differs_a_little_is_refused(copied: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    """A difference that no accuracy shows."""

    def exported(deployed: Deployed, side: int) -> bytes:
        return to_onnx(Shifted(deployed.network, deployed.temperature).eval(), side)

    monkeypatch.setattr(onnx_bundle, "to_onnx", exported)
    refuse(copied, ExportError, r"probabilities differ by .*, 0.0001 allowed")


def test_what_the_exporter_lacks_is_named() -> None:
    """Its own error says the same whatever it is."""

    class Unknown(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(pixels.float())

    with pytest.raises(ExportError, match=r"PyTorch cannot export this network: .*bessel_j0"):
        to_onnx(Unknown(), 8)


def test_every_batch_size_is_compared(exported: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that is wrong for one number of pictures only, as one with a batch baked into it would be."""

    class Fickle(OnnxRuntimeEngine):
        wrong = 0

        def run(self, pixels: Pixels) -> Answers:
            right = super().run(pixels)
            wrong = right._replace(probabilities=right.probabilities[:, ::-1].copy())
            return wrong if len(pixels) == self.wrong else right

    monkeypatch.setattr(onnx_bundle, "OnnxRuntimeEngine", Fickle)
    for wrong in (1, 3, 17):
        monkeypatch.setattr(Fickle, "wrong", wrong)
        refuse(exported, ExportError, "probabilities differ")
    monkeypatch.setattr(Fickle, "rows", 1)  # as for large pictures, of which the engine takes one at a time
    refuse(exported, ExportError, "probabilities differ")


def test_parity_pictures_are_of_all_classes(exported: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[Pixels] = []
    true_answers = onnx_bundle.network_answers

    def watched(deployed: Any, pixels: Pixels) -> Any:
        batches.append(pixels)
        return true_answers(deployed, pixels)

    monkeypatch.setattr(onnx_bundle, "network_answers", watched)
    dataset = exported.dataset()
    export_bundle(exported.run, dataset)
    (largest,) = [batch for batch in batches if len(batch) == 17]
    by_pixels = {dataset.pixels[id].tobytes(): dataset.manifest.rows[id] for id in range(len(dataset.pixels))}
    rows = [by_pixels[picture.tobytes()] for picture in largest]
    assert {row.split for row in rows} == {"validation"}
    assert {row.label for row in rows} == set(CLASSES)


def test_a_graph_that_cannot_be_compared_with_its_evaluation_is_not_exported(copied: Finished) -> None:
    copied.run.predictions.unlink()
    refuse(copied, RunError, "predictions")


def test_a_class_that_is_swapped_is_refused(exported: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers to stored predictions are compared too, not only those to the few pictures of the batches."""

    class Swapped(OnnxRuntimeEngine):
        def answer(self, pixels: Pixels) -> Answers:
            right = super().answer(pixels)
            return Answers(right.logits[:, ::-1].copy(), right.probabilities) if len(pixels) > 17 else right

    monkeypatch.setattr(onnx_bundle, "OnnxRuntimeEngine", Swapped)
    refuse(exported, ExportError, "put into another class")


def test_an_engine_that_fails_the_golden_pictures_costs_no_bundle(
    exported: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(engine: Engine, golden: Any) -> None:
        raise ExportError("golden")

    monkeypatch.setattr(onnx_bundle, "check_golden", failing)
    refuse(exported, ExportError, "golden")


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_picture_that_changed_is_not_put_into_the_bundle(
    exported: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str
) -> None:
    data = tmp_path / "blobs"
    shutil.copytree(exported.data, data)
    content = exported.run.read_config()
    content["data"]["root"] = str(data)
    exported.run.write_config(content)
    dataset = exported.dataset()
    changed = dataset.manifest.path(int(pick(dataset, split, 1)[0]))
    changed.write_bytes(changed.read_bytes() + b"\0")
    with pytest.raises(DataError, match="has changed since the run began"):
        export_bundle(exported.run, dataset)
    changed.unlink()
    with pytest.raises(DataError, match="can no longer be read"):
        export_bundle(exported.run, dataset)


def test_what_is_missing_is_said_in_a_line(exported: Finished) -> None:
    dataset = exported.dataset()
    exported.run.metrics.unlink()
    with pytest.raises(RunError, match="darkroom evaluate"):
        export_bundle(exported.run, dataset)
    exported.run.weights.unlink()
    with pytest.raises(RunError):
        export_bundle(exported.run, dataset)


def test_someone_elses_file_in_the_bundle_is_not_deleted(exported: Finished) -> None:
    (exported.run.bundle / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match=r"notes.txt, which is no part of a bundle"):
        export_bundle(exported.run, exported.dataset())
    assert (exported.run.bundle / "notes.txt").read_text() == "mine"


def test_deployed_takes_uint8_rows_of_pixels() -> None:
    """Scaling and channel order against a network that only looks: the mean of each channel, as it is."""

    class Mean(torch.nn.Module):
        def forward(self, planes: torch.Tensor) -> torch.Tensor:
            return planes.mean(dim=(2, 3))

    pixels = np.zeros((2, 5, 4, 3), np.uint8)
    pixels[0, :, :, 0], pixels[0, :, :, 2], pixels[1, 0, 0, 1] = 200, 10, 100
    logits, probabilities = Deployed(Mean(), 4.0)(torch.from_numpy(pixels))
    np.testing.assert_allclose(logits.numpy(), [[200, 0, 10], [0, 5, 0]])
    np.testing.assert_allclose(probabilities.numpy(), softmax(logits.numpy() / 4, axis=1), rtol=1e-5)


def test_the_graph_tells_nothing_of_the_machine_that_made_it(finished_run: Finished) -> None:
    graph = (finished_run.run.bundle / "model.onnx").read_bytes()
    for word in (b"stack_trace", b".py", str(Path(onnx_bundle.__file__).parent).encode()):
        assert word not in graph
