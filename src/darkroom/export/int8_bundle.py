"""A run as a bundle in 8-bit integers, beside the one in fp32; refused where it loses more accuracy than was allowed.

Validation decides. The test split is looked at only after that, to report what int8 costs there, and only where the run
has opened it before; this counts as another opening.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from darkroom.bundle import Bundle, BundleInfo
from darkroom.data.dataset import DataSet
from darkroom.engines.novelty import fit_novelty
from darkroom.engines.onnx_runtime import OnnxRuntimeEngine, open_session
from darkroom.errors import ExportError, UsageError
from darkroom.evaluation.calibration import fit_temperature, not_sure_threshold, probabilities
from darkroom.evaluation.metrics import headline, measure
from darkroom.export.onnx_bundle import (
    BATCHES,
    TEMPERATURE,
    Exported,
    answer_all,
    compare_batches,
    deployed_network,
    export_graph,
    golden_answers,
    put_in_place,
    spread,
)
from darkroom.export.quantise import Pixels, compare_throughput, convolutions, quantise, with_constant
from darkroom.progress import say, track
from darkroom.provenance import available_cores, provenance
from darkroom.runs import Predictions, Run

CALIBRATION = 512
"""Training pictures that set the ranges of the activations."""

CALIBRATION_BATCH = 16

TOLERANCE = 0.05
"""Largest difference in probability between two computations of an int8 graph. Where a value lies halfway between two
of the 256 levels, the last bit of an fp32 result decides to which it goes: on CIFAR-10 that moved a probability by 0.02
at most."""

TIMED_BATCHES = (64, 1)
TIMED_SECONDS = 2.0
"""For each of those batch sizes, both graphs together."""


def export_int8(run: Run, dataset: DataSet, *, bound: float) -> Bundle:
    """Write RUN/bundle-int8, whose metrics, temperature and threshold are those of its own answers.

    Raises:
        DataError: a picture that goes into the bundle has changed since the run began.
        ExportError: int8 loses more than `bound` points of validation accuracy, or a graph is not computed right.
        RunError: the run is not trained or not evaluated.
    """
    if run.refitted:
        raise UsageError(
            f"{run.folder} was refitted on validation, by which --int8 would be judged: export without it, "
            "or train without --refit"
        )
    fp32 = export_graph(deployed_network(run), run, dataset)
    say("Quantising the graph to int8")
    graph = quantise(fp32.graph, calibration_batches(dataset))
    before = {"validation": run.read_predictions("validation")}
    after = {"validation": _answered(replace(fp32, graph=graph), dataset, before["validation"])}
    require_accurate(compare_accuracy(before["validation"], after["validation"]), bound)
    if "test" in (metrics := run.read_metrics()):  # only now, since nothing may follow from it
        run.write_metrics({**metrics, "test_openings": metrics["test_openings"] + 1})
        before["test"] = run.read_predictions("test")
        after["test"] = _answered(replace(fp32, graph=graph), dataset, before["test"])
    info = _measured(fp32.info, after)
    int8 = Exported(with_constant(graph, TEMPERATURE, info.temperature), info)
    quantisation = {
        **_method(fp32, dataset),
        "bound_points": bound,
        "accuracy": {split: compare_accuracy(before[split], after[split]) for split in after},
        **_gain(fp32, int8, dataset),
    }
    int8 = replace(int8, info=replace(info, quantisation=quantisation, parity=_prove(int8, dataset)))
    with _engine(int8) as engine:
        golden = golden_answers(engine.run, dataset)
    return put_in_place(run.int8_bundle, int8, golden, run=run, dataset=dataset)


def calibration_batches(dataset: DataSet) -> Iterator[Pixels]:
    """Up to 512 training pictures, unaugmented, in batches (N, H, W, 3) which are each spread over all classes."""
    ids = dataset.manifest.indices("train")
    chosen = spread(ids, min(CALIBRATION, len(ids)))
    number = -(-len(chosen) // CALIBRATION_BATCH)
    for first in track(range(number), total=number, what="Calibrating", unit="batches"):
        yield dataset.pixels[chosen[first::number]]


def compare_accuracy(fp32: Predictions, int8: Predictions) -> dict[str, Any]:
    """Accuracy of both on the same pictures, the difference in points, and how often one alone is right."""
    right, other = (said.logits.argmax(axis=1) == said.labels for said in (fp32, int8))
    count, lost = len(right), int(right.sum()) - int(other.sum())
    return {
        "n": count,
        "fp32": float(right.mean()),
        "int8": float(other.mean()),
        "lost_points": 100 * lost / count,
        "only_fp32_right": int((right & ~other).sum()),
        "only_int8_right": int((other & ~right).sum()),
    }


def require_accurate(accuracy: dict[str, Any], bound: float) -> None:
    """Raise `ExportError` when more than `bound` points are lost."""
    if accuracy["lost_points"] > bound:
        raise ExportError(
            f"int8 loses {accuracy['lost_points']:.2f} points of accuracy on {accuracy['n']:,} validation pictures "
            f"({100 * accuracy['int8']:.2f} instead of {100 * accuracy['fp32']:.2f} %), {bound:g} are allowed: "
            "export without --int8, or allow more with --int8-bound"
        )


def _engine(exported: Exported, *, optimised: bool = True) -> OnnxRuntimeEngine:
    session = open_session(exported.graph, available_cores(), optimised=optimised)
    return OnnxRuntimeEngine(exported.info, session)


def _answered(int8: Exported, dataset: DataSet, stored: Predictions) -> Predictions:
    """The same pictures with the logits of int8."""
    with _engine(int8) as engine:
        return replace(stored, logits=answer_all(engine, dataset, stored.ids).logits)


def _measured(fp32: BundleInfo, int8: dict[str, Predictions]) -> BundleInfo:
    """With the temperature and threshold that int8's logits of validation call for, and its metrics."""
    validation = int8["validation"]
    temperature = fit_temperature(validation.logits, validation.labels)
    answers = {split: probabilities(said.logits, temperature) for split, said in int8.items()}
    return replace(
        fp32,
        name=f"{fp32.name}-int8",
        model={**fp32.model, "arithmetic": "int8"},
        temperature=temperature,
        threshold=not_sure_threshold(validation.labels, answers["validation"]).value,
        novelty=fit_novelty(validation.logits, temperature),
        metrics={split: headline(measure(said.labels, answers[split], fp32.classes)) for split, said in int8.items()},
    )


def _method(fp32: Exported, dataset: DataSet) -> dict[str, Any]:
    """How the graph was quantised, in words and numbers."""
    quantised, others = convolutions(fp32.graph)
    return {
        "method": "static; activations range over the mean extremes of the batches of calibration",
        "weights": "int8 of which 7 bits are used, a scale for each channel",
        "activations": "uint8",
        "convolutions": {"int8": len(quantised), "fp32": len(others)},
        "calibration": {"split": "train", "pictures": min(CALIBRATION, len(dataset.manifest.indices("train")))},
        "golden_tolerance": TOLERANCE,
    }


def _gain(fp32: Exported, int8: Exported, dataset: DataSet) -> dict[str, Any]:
    """Bytes of both graphs and pictures a second, on the machine that this runs on."""
    say("Timing int8 against fp32")
    graphs = {"fp32": fp32.graph, "int8": int8.graph}
    pixels = dataset.pixels[spread(dataset.manifest.indices("validation"), max(TIMED_BATCHES))]
    speeds = [compare_throughput(graphs, pixels, batch_size=size, seconds=TIMED_SECONDS) for size in TIMED_BATCHES]
    sizes = {name: len(graph) for name, graph in graphs.items()}
    return {"bytes": sizes, "throughput": speeds, "hardware": provenance()["hardware"]}


def _prove(int8: Exported, dataset: DataSet) -> dict[str, Any]:
    """Compare the graph as it runs, in integers, with itself computed in fp32, node by node as it is written."""
    with _engine(int8) as engine, _engine(int8, optimised=False) as reference:
        worst = compare_batches(engine.run, reference.run, dataset)
    if worst > TOLERANCE:
        raise ExportError(
            f"ONNX Runtime computes the int8 graph wrongly on this processor: probabilities differ by {worst:.2g} from "
            f"those of the same graph in fp32, {TOLERANCE:g} allowed: export without --int8"
        )
    return {
        "with": "the same graph computed in fp32",
        "batch_sizes": list(BATCHES),
        "largest_difference": worst,
        "tolerance": TOLERANCE,
        "fp32_graph_with_network": int8.info.parity,
    }
