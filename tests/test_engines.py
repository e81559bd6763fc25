"""Engines: the bundle's answers, whatever the batch, or one clear line."""

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bundles
from darkroom.bundle import BundleInfo
from darkroom.engines.base import Answers, Engine, check_golden
from darkroom.engines.onnx_runtime import OnnxRuntimeEngine
from darkroom.errors import BundleError, EngineError
from darkroom.preprocess import Preprocessing


def noise(count: int, seed: int = 0) -> np.ndarray:
    """Random pixels (count, H, W, 3)."""
    shape = (count, bundles.CONTRACT.height, bundles.CONTRACT.width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@given(count=st.integers(0, 600), seed=st.integers(0, 2**32 - 1))
def test_any_batch_size_gives_what_the_formula_gives(engine: OnnxRuntimeEngine, count: int, seed: int) -> None:
    pixels = noise(count, seed)
    probabilities, logits = engine.predict(pixels), engine.logits(pixels)
    assert probabilities.shape == logits.shape == (count, len(bundles.CLASSES))
    assert probabilities.dtype == logits.dtype == np.float32
    np.testing.assert_allclose(probabilities, bundles.expected_probabilities(pixels), atol=1e-5)
    np.testing.assert_allclose(logits, bundles.expected_logits(pixels), atol=1e-4)


def test_pixels_need_not_be_contiguous(engine: OnnxRuntimeEngine) -> None:
    pixels = noise(4)[::-1, :, ::-1]
    np.testing.assert_allclose(engine.predict(pixels), bundles.expected_probabilities(pixels), atol=1e-5)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((1, 24, 16, 3), np.uint8),
        np.zeros((16, 24, 3), np.uint8),
        np.zeros((1, 16, 24, 3), np.float32),
        np.zeros((1, 16, 24, 1), np.uint8),
        np.zeros(0, np.uint8),
        [[1, 2, 3]],
    ],
)
def test_other_forms_are_refused_in_one_line(engine: OnnxRuntimeEngine, pixels: np.ndarray) -> None:
    with pytest.raises(EngineError, match=r"uint8 pixels of shape \(N, 16, 24, 3\)") as caught:
        engine.predict(pixels)
    assert "\n" not in str(caught.value)


def test_threads_share_an_engine(engine: OnnxRuntimeEngine) -> None:
    batches = [noise(1 + seed % 5, seed) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(engine.predict, batches))
    for pixels, probabilities in zip(batches, answers, strict=True):
        np.testing.assert_allclose(probabilities, bundles.expected_probabilities(pixels), atol=1e-5)


def test_a_closed_engine_says_so_and_closes_twice(folder: Path) -> None:
    with OnnxRuntimeEngine.open(folder) as opened:
        opened.close()
        with pytest.raises(EngineError, match="closed"):
            opened.predict(noise(1))


def test_a_bundle_whose_graph_answers_otherwise_is_refused(tmp_path: Path) -> None:
    bundles.make_bundle(tmp_path / "b", onnx=bundles.colour_model(temperature=1.35))
    with pytest.raises(EngineError, match="answers the golden pictures differently"):
        OnnxRuntimeEngine.open(tmp_path / "b")


def test_a_bundle_that_prepares_pictures_otherwise_is_refused(tmp_path: Path) -> None:
    bundles.make_bundle(tmp_path / "b", preprocessing=Preprocessing(24, 16, interpolation="nearest"))
    with pytest.raises(BundleError, match="prepared differently"):
        OnnxRuntimeEngine.open(tmp_path / "b")


def test_a_changed_bundle_is_refused(tmp_path: Path) -> None:
    bundle = bundles.make_bundle(tmp_path / "b")
    bundle.model.write_bytes(bundle.model.read_bytes() + b"\0")
    with pytest.raises(BundleError, match=r"model\.onnx was changed"):
        OnnxRuntimeEngine.open(tmp_path / "b")


def test_a_graph_that_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    bundles.make_bundle(tmp_path / "b", onnx=b"no graph at all")
    with pytest.raises(EngineError, match="cannot load") as caught:
        OnnxRuntimeEngine.open(tmp_path / "b")
    assert "\n" not in str(caught.value)


def test_a_graph_with_other_names_is_refused(tmp_path: Path) -> None:
    bundles.make_bundle(tmp_path / "b", onnx=bundles.colour_model(input_name="x"))
    with pytest.raises(EngineError, match="darkroom export"):
        OnnxRuntimeEngine.open(tmp_path / "b")


def test_foreign_exceptions_are_translated(tmp_path: Path) -> None:
    graph = onnx.load_from_string(bundles.colour_model())
    graph.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 15  # the graph refuses what the contract makes
    bundles.make_bundle(tmp_path / "b", onnx=graph.SerializeToString())
    with pytest.raises(EngineError, match="ONNX Runtime cannot answer") as caught:
        OnnxRuntimeEngine.open(tmp_path / "b")
    assert "\n" not in str(caught.value)


class FormulaEngine(Engine):
    """The base class over numpy, which remembers the batches it was given."""

    def __init__(self, bundle: BundleInfo, *, flaw: str = "") -> None:
        super().__init__(bundle)
        self.batches: list[int] = []
        self.flaw = flaw
        self.lock = threading.Lock()

    def run(self, pixels: np.ndarray) -> Answers:
        """Answer by the formula, with a flaw if one was asked for."""
        with self.lock:
            self.batches.append(len(pixels))
        probabilities = bundles.expected_probabilities(pixels)
        if self.flaw == "nan":
            probabilities[0, 0] = np.nan
        if self.flaw == "shape":
            probabilities = probabilities[:, :2]
        return Answers(bundles.expected_logits(pixels), probabilities)

    def close(self) -> None:
        """Nothing to let go of."""


def test_batches_are_bounded() -> None:
    engine = FormulaEngine(bundles.bundle_info())
    engine.predict(noise(600))
    assert engine.batches == [256, 256, 88]
    large = dataclasses.replace(bundles.bundle_info(), preprocessing=Preprocessing(1024, 512))
    assert FormulaEngine(large).rows == 2
    huge = dataclasses.replace(bundles.bundle_info(), preprocessing=Preprocessing(4096, 4096))
    assert FormulaEngine(huge).rows == 1


@pytest.mark.parametrize("flaw", ["nan", "shape"])
def test_answers_that_are_none_are_refused(flaw: str) -> None:
    with pytest.raises(EngineError, match="finite numbers"):
        FormulaEngine(bundles.bundle_info(), flaw=flaw).predict(noise(2))


@pytest.mark.parametrize(("shift", "refused"), [(0.0, False), (9e-4, False), (1.2e-3, True), (-1.2e-3, True)])
def test_golden_tolerance(shift: float, refused: bool) -> None:
    golden = bundles.golden()
    golden.probabilities[1, 2] += shift
    engine = FormulaEngine(bundles.bundle_info())
    if refused:
        with pytest.raises(EngineError, match="refusing to predict"):
            check_golden(engine, golden)
    else:
        check_golden(engine, golden)
