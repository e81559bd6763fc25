"""A run as a bundle: the network as an ONNX graph that takes the contract's pixels, proved to answer as the network."""

import hashlib
import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from darkroom import files
from darkroom.bundle import Bundle, BundleInfo, Golden, write_bundle
from darkroom.data.dataset import DataSet
from darkroom.data.manifest import Manifest
from darkroom.engines.base import Answers, Engine, check_golden
from darkroom.engines.onnx_runtime import OnnxRuntimeEngine, open_session
from darkroom.errors import DataError, ExportError
from darkroom.models.stored import load_network
from darkroom.progress import say
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


class Deployed(nn.Module):
    """What is exported: uint8 pixels (N, H, W, 3) -> logits (N, K) and tempered probabilities (N, K)."""

    def __init__(self, network: nn.Module, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Normalisation is the network's own first layer."""
        logits = self.network(pixels.permute(0, 3, 1, 2).float())
        return logits, torch.softmax(logits / self.temperature, dim=1)


def export_bundle(run: Run, dataset: DataSet) -> Bundle:
    """Write the bundle of a finished, evaluated run, and ten sample pictures.

    Raises:
        DataError: a picture that goes into the bundle has changed since the run began.
        ExportError: graph and network disagree on real pictures.
        RunError: the run is not trained or not evaluated.
    """
    content, metrics = run.read_config(), run.read_metrics()
    deployed = Deployed(load_network(run), metrics["temperature"]).eval()
    side = dataset.preprocessing.width
    say("Exporting the network as ONNX and comparing both on real pictures")
    graph = to_onnx(deployed, side)
    info = BundleInfo(
        name=f"{dataset.name}-{content['network']['kind']}",
        classes=dataset.manifest.classes,
        preprocessing=dataset.preprocessing,
        temperature=metrics["temperature"],
        threshold=metrics["threshold"],
        model={name: content["network"][name] for name in ("kind", "parameters", "multiply_adds")},
        provenance={
            "source": dataset.name,
            "fingerprint": dataset.manifest.fingerprint,
            "weights_sha256": files.sha256_of(run.weights),
            "seed": content["seed"],
            "versions": content["versions"],
            "created": content["created"],
        },
        metrics={split: _headline(metrics[split]) for split in ("validation", "test") if split in metrics},
    )
    golden = _golden(deployed, dataset)
    with OnnxRuntimeEngine(info, open_session(graph, available_cores())) as engine:
        info = replace(info, parity=_prove(engine, deployed, run, dataset))
        check_golden(engine, golden)  # before an older bundle is replaced
    bundle = write_bundle(run.bundle, info=info, onnx=graph, golden=golden)
    OnnxRuntimeEngine.open(run.bundle).close()
    write_samples(run, dataset)
    return bundle


def to_onnx(deployed: nn.Module, side: int) -> bytes:
    """The graph as an ONNX file with a dynamic batch, weights inside."""
    example = torch.zeros(2, side, side, 3, dtype=torch.uint8)
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
    if program is None:
        raise ExportError("PyTorch exported no ONNX graph: install the versions of constraints.txt")
    graph: bytes = program.model_proto.SerializeToString()
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


def _prove(engine: Engine, deployed: nn.Module, run: Run, dataset: DataSet) -> dict[str, Any]:
    """Compare graph and network at several batch sizes, and on every prediction that the run has stored."""
    ids = dataset.manifest.indices("validation")
    differences = []
    for size in BATCHES:
        spread = ids[np.linspace(0, len(ids) - 1, size).round().astype(int)]  # the first ones are all of one class
        pixels = np.ascontiguousarray(dataset.pixels[spread])
        expected = network_answers(deployed, pixels).probabilities
        differences.append(_difference(engine.run(pixels).probabilities, expected))  # whole: `predict` may cut it
    worst = max(differences)
    _require(worst <= TOLERANCE, f"probabilities differ by {worst:.2g}, {TOLERANCE:g} allowed")
    parity: dict[str, Any] = {"batch_sizes": list(BATCHES), "largest_difference": worst, "tolerance": TOLERANCE}
    metrics = run.read_metrics()
    for split in ("validation", "test"):
        if split in metrics:
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


def _compare_stored(engine: Engine, run: Run, dataset: DataSet, split: str) -> dict[str, Any]:
    """The graph's answers to all pictures of a split that has been evaluated before.

    A picture whose two best classes the network itself cannot tell apart (by `TOLERANCE`) may fall to either.
    """
    stored = run.read_predictions(split)
    parts = np.array_split(stored.ids, -(-len(stored.ids) // AT_ONCE))
    answers = [engine.answer(dataset.pixels[part]) for part in parts]
    logits, probabilities = (np.concatenate(values) for values in zip(*answers, strict=True))
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


def network_answers(deployed: nn.Module, pixels: npt.NDArray[np.uint8]) -> Answers:
    """What the network itself says of pixels (N, H, W, 3)."""
    with torch.no_grad():
        logits, probabilities = deployed(torch.from_numpy(pixels))
    return Answers(logits.numpy(), probabilities.numpy())


def _difference(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> float:
    return float(np.abs(left - right).max())


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ExportError(f"the exported graph does not answer as the network does: {what}; please report this")


def _headline(block: Mapping[str, Any]) -> dict[str, Any]:
    return {name: block[name] for name in ("accuracy", "macro_f1", "ece", "n")}


def _golden(deployed: nn.Module, dataset: DataSet) -> Golden:
    manifest = dataset.manifest
    ids = pick(dataset, "validation", GOLDEN)
    pixels = np.ascontiguousarray(dataset.pixels[ids])
    answers = network_answers(deployed, pixels)
    encoded = tuple(original(manifest, int(id)) for id in ids)
    return Golden(encoded, pixels, answers.logits, answers.probabilities)


def original(manifest: Manifest, id: int) -> bytes:
    """A picture's file as it was when the run began; raises `DataError` when it is not so any more."""
    path = manifest.path(id)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} can no longer be read ({error.strerror or error}): put it back") from error
    if hashlib.sha256(content).hexdigest() != manifest.rows[id].sha256:
        raise DataError(f"{path} has changed since the run began: put the old file back, or start a new run")
    return content


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
        (temporary / f"{name}-{id}{suffix}").write_bytes(original(manifest, int(id)))
    shutil.rmtree(run.samples, ignore_errors=True)
    temporary.rename(run.samples)
