"""A run as a bundle: the network as an ONNX graph that takes the contract's pixels, proved to answer as the network."""

import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from darkroom.bundle import Bundle, BundleInfo, Golden, write_bundle
from darkroom.data.dataset import DataSet
from darkroom.engines.base import Answers, Engine, check_golden
from darkroom.engines.onnx_runtime import OnnxRuntimeEngine, open_session
from darkroom.errors import ExportError
from darkroom.export.card import model_card
from darkroom.export.description import describe
from darkroom.models.stored import load_network
from darkroom.progress import say, track
from darkroom.provenance import available_cores
from darkroom.runs import Run

TOLERANCE = 1e-4
"""Largest difference in probability that is accepted between graph and network, in float32."""

STORED_TOLERANCE = 1e-2
"""The same between graph and stored predictions, which an accelerator may have computed with shorter numbers."""

BATCHES = (1, 3, 17)
AT_ONCE = 500
"""Pictures read from the pixel cache at once."""

GOLDEN = 10
SAMPLES = 10
OPSET = 20

TEMPERATURE = "temperature"
"""Name of that constant in the graph."""

Pixels = npt.NDArray[np.uint8]
Answering = Callable[[Pixels], Answers]


class Deployed(nn.Module):
    """What is exported: uint8 pixels (N, H, W, 3) -> logits (N, K) and tempered probabilities (N, K)."""

    temperature: Tensor

    def __init__(self, network: nn.Module, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.register_buffer(TEMPERATURE, torch.as_tensor(temperature, dtype=torch.float32))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Normalisation is the network's own first layer."""
        logits = self.network(pixels.permute(0, 3, 1, 2).float())
        return logits, torch.softmax(logits / self.temperature, dim=1)


@dataclass(frozen=True)
class Exported:
    """A graph, and what bundle.json says of it."""

    graph: bytes
    info: BundleInfo


def export_bundle(run: Run, dataset: DataSet) -> Bundle:
    """Write the bundle of a finished, evaluated run, and ten sample pictures.

    Raises:
        DataError: a picture that goes into the bundle has changed since the run began.
        ExportError: graph and network disagree on real pictures.
        RunError: the run is not trained or not evaluated.
    """
    deployed = deployed_network(run)
    exported = export_graph(deployed, run, dataset)
    golden = golden_answers(partial(network_answers, deployed), dataset)
    return put_in_place(run.bundle, exported, golden, run=run, dataset=dataset)


def deployed_network(run: Run) -> Deployed:
    """The chosen network of a run with the temperature that its evaluation fitted."""
    metrics = run.read_metrics()
    return Deployed(load_network(run), metrics["temperature"]).eval()


def export_graph(deployed: Deployed, run: Run, dataset: DataSet) -> Exported:
    """The graph of a run, proved to answer as the network; nothing is written. Raises what `export_bundle` does."""
    info = describe(run)
    say("Exporting the network as ONNX and comparing both on real pictures")
    graph = to_onnx(deployed, dataset.preprocessing.width)
    with OnnxRuntimeEngine(info, open_session(graph, available_cores())) as engine:
        return Exported(graph, replace(info, parity=prove(engine, deployed, run, dataset)))


def put_in_place(folder: Path, exported: Exported, golden: Golden, *, run: Run, dataset: DataSet) -> Bundle:
    """Write a bundle of the run and its sample pictures; the golden answers are checked before and after."""
    with OnnxRuntimeEngine(exported.info, open_session(exported.graph, available_cores())) as engine:
        check_golden(engine, golden)  # before an older bundle is replaced
    card = model_card(run.read_config(), run.read_metrics(), exported.info)
    bundle = write_bundle(folder, info=exported.info, onnx=exported.graph, golden=golden, card=card)
    OnnxRuntimeEngine.open(folder).close()
    write_samples(run, dataset)
    return bundle


def to_onnx(deployed: nn.Module, side: int) -> bytes:
    """The graph as an ONNX file with a dynamic batch, weights inside."""
    example = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    try:
        with _quiet():
            program = torch.onnx.export(
                deployed,
                (example,),
                dynamo=True,
                input_names=["pixels"],
                output_names=["logits", "probabilities"],
                dynamic_shapes={"pixels": {0: torch.export.Dim("batch", min=1)}},
                opset_version=OPSET,
                verbose=False,
            )
    except Exception as error:  # the exporter's own errors share no base with others
        raise ExportError(f"PyTorch cannot export this network: {_root(error)}") from error
    if program is None:
        raise ExportError("PyTorch exported no ONNX graph: install the versions of constraints.txt")
    return _without_origin(program.model_proto)


def _root(error: BaseException) -> str:
    """What an error was raised from, in a line: the exporter's own words are the same for all of them."""
    while error.__cause__:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _without_origin(model: Any) -> bytes:
    """The graph as a file, without what the exporter notes of each node: code by its paths on this machine."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    for entry in (model, model.graph):
        del entry.metadata_props[:]
    graph: bytes = model.SerializeToString()
    return graph


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of its own deprecated parts and of packages that it does not need."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def prove(engine: Engine, deployed: nn.Module, run: Run, dataset: DataSet) -> dict[str, Any]:
    """Compare graph and network at several batch sizes, and on every prediction that the run has stored.

    Raises `ExportError` unless they agree.
    """
    worst = compare_batches(engine.run, partial(network_answers, deployed), dataset)
    _require(worst <= TOLERANCE, f"probabilities differ by {worst:.2g}, {TOLERANCE:g} allowed")
    parity: dict[str, Any] = {"batch_sizes": list(BATCHES), "largest_difference": worst, "tolerance": TOLERANCE}
    for split in run.judges():
        parity[split] = _compare_stored(engine, run, dataset, split)
        difference = parity[split]["largest_difference"]
        _require(
            difference <= STORED_TOLERANCE,
            f"probabilities on {split} differ by {difference:.2g} from those of the evaluation",
        )
        _require(
            parity[split]["other_answers"] == 0,
            f"{parity[split]['other_answers']} pictures of {split} are put into another class",
        )
    return parity


def compare_batches(left: Answering, right: Answering, dataset: DataSet) -> float:
    """Largest difference in probability on validation pictures, in batches of several sizes, each answered whole."""
    ids = dataset.manifest.indices("validation")
    batches = [np.ascontiguousarray(dataset.pixels[spread(ids, size)]) for size in BATCHES]
    return max(_difference(left(batch).probabilities, right(batch).probabilities) for batch in batches)


def spread(ids: npt.NDArray[np.int64], number: int) -> npt.NDArray[np.int64]:
    """`number` of the ids at even distances: in the order of a manifest the first ones are all of one class."""
    places = np.linspace(0, len(ids) - 1, number).round().astype(int)
    chosen: npt.NDArray[np.int64] = ids[places]
    return chosen


def _compare_stored(engine: Engine, run: Run, dataset: DataSet, split: str) -> dict[str, Any]:
    """The graph's answers to all pictures of a split that has been evaluated before.

    A picture whose two best classes the network itself cannot tell apart (by `TOLERANCE`) may fall to either.
    """
    stored = run.read_predictions(split)
    logits, probabilities = answer_all(engine, dataset, stored.ids)
    expected = torch.softmax(torch.from_numpy(stored.logits) / engine.bundle.temperature, dim=1).numpy()
    second, best = np.sort(expected, axis=1)[:, -2:].T
    other = (logits.argmax(axis=1) != stored.logits.argmax(axis=1)) & (best - second > TOLERANCE)
    return {
        "n": len(stored.ids),
        "accuracy": float((logits.argmax(axis=1) == stored.labels).mean()),
        "other_answers": int(other.sum()),
        "largest_difference": _difference(probabilities, expected),
        "largest_logit_difference": _difference(logits, stored.logits),
    }


def answer_all(engine: Engine, dataset: DataSet, ids: npt.NDArray[np.int64]) -> Answers:
    """What the engine says of those pictures of a data set."""
    parts = np.array_split(ids, -(-len(ids) // AT_ONCE))
    shown = track(parts, total=len(parts), what="Asking the exported graph", unit="parts")
    answers = [engine.answer(dataset.pixels[part]) for part in shown]
    return Answers(*(np.concatenate(values) for values in zip(*answers, strict=True)))


def network_answers(deployed: nn.Module, pixels: Pixels) -> Answers:
    """What the network itself says of pixels (N, H, W, 3)."""
    with torch.no_grad():
        logits, probabilities = deployed(torch.from_numpy(pixels))
    return Answers(logits.numpy(), probabilities.numpy())


def _difference(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> float:
    return float(np.abs(left - right).max())


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ExportError(f"the exported graph does not answer as the network does: {what}; please report this")


def golden_answers(answer: Answering, dataset: DataSet) -> Golden:
    """Ten validation pictures, one a class where possible, and what `answer` says of them."""
    manifest = dataset.manifest
    ids = pick(dataset, "validation", GOLDEN)
    pixels = np.ascontiguousarray(dataset.pixels[ids])
    answers = answer(pixels)
    encoded = tuple(manifest.content(int(id)) for id in ids)
    return Golden(encoded, pixels, answers.logits, answers.probabilities)


def pick(dataset: DataSet, split: str, number: int) -> npt.NDArray[np.int64]:
    """Ids of `number` pictures of a split: class after class, the smallest files first."""
    manifest = dataset.manifest
    ids, labels = manifest.indices(split), manifest.labels()
    by_class = [
        sorted(ids[labels[ids] == label].tolist(), key=lambda id: (_size(manifest.path(id)), id))
        for label in range(len(manifest.classes))
    ]
    rounds = [members[place] for place in range(number) for members in by_class if place < len(members)]
    chosen = rounds[:number]
    return np.array(chosen, dtype=np.int64)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0  # one that is gone comes first, and is told of when it is read


def write_samples(run: Run, dataset: DataSet) -> None:
    """Copy ten test pictures, one a class where possible, to try in the app."""
    manifest = dataset.manifest
    temporary = run.samples.with_name(".samples.new")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for id in pick(dataset, "test", SAMPLES):
        name = "".join(c if c.isalnum() or c in "-_ " else "_" for c in manifest.rows[int(id)].label)
        suffix = manifest.path(int(id)).suffix.lower()
        (temporary / f"{name}-{id}{suffix}").write_bytes(manifest.content(int(id)))
    shutil.rmtree(run.samples, ignore_errors=True)
    temporary.rename(run.samples)
