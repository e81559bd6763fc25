"""Answers of a trained run by several engines: milliseconds a batch, pictures a second, and whether they are right.

    python benchmarks/inference.py RUN [--rounds 3] [--batches 1 64] [--seconds 2] [--only WORD …] [--cache FOLDER]

All take the same uint8 pixels and give probabilities, with as many threads: PyTorch as it is, in bf16 and
channels_last, both compiled too, and ONNX Runtime as darkroom serves it, in fp32 and int8. They take turns, each round
begins with another one; a round's value is the median of its calls. Compiling, loading and warming up are not counted.
Nothing is written into RUN: graphs are made in memory, the int8 one whatever it loses.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from darkroom.config import CACHE_FOLDER, DataConfig
from darkroom.data.dataset import DataSet, reopen
from darkroom.engines.onnx_runtime import INPUT, OUTPUTS, open_session
from darkroom.errors import DarkroomError
from darkroom.export.onnx_bundle import Deployed, to_onnx
from darkroom.models.stored import load_network
from darkroom.progress import say
from darkroom.provenance import available_cores
from darkroom.runs import Run
from measuring import argument_parser, launch, processor_only, ratio, rotated, show, summarise, write_results

Pixels = npt.NDArray[np.uint8]
Answer = Callable[[Pixels], npt.NDArray[np.float32]]
"""From pixels (N, H, W, 3) to probabilities (N, K)."""

SERVED, INT8 = "ONNX Runtime fp32", "ONNX Runtime int8"
JUDGED, CHUNK = 2048, 64
"""Most validation pictures on which answers are judged, and how many at once."""

WARM_UP = 3


def main(arguments: Sequence[str]) -> None:
    """Rounds, table, file."""
    options = parse(arguments)
    processor_only()
    torch.set_num_threads(options.threads)
    run = Run(options.run)
    network = load_network(run)
    dataset = reopen(run, DataConfig(cache=options.cache))
    pixels = batches(dataset, options.batches)
    makers = {name: make for name, make in makers_of(network, dataset).items() if chosen(name, options.only)}
    engines, left_out = usable(makers, pixels)
    with torch.no_grad():
        accuracy = {name: judge(name, answer, dataset) for name, answer in engines.items()}
        rounds = [run_round(engines, pixels, number, options) for number in range(options.rounds)]
    ratios = list(ratios_of(rounds, options.batches))
    show(ratios)
    for name, right in accuracy.items():
        print(f"{name}: {right:.2%} of {judged(dataset).size:,} validation pictures right")
    content = {
        "what_counts": __doc__.partition("\n\n")[2],
        "network": {key: run.read_config()["network"][key] for key in ("parameters", "multiply_adds")},
        "n": len(rounds),
        "threads": options.threads,
        "validation_accuracy": {"pictures": judged(dataset).size, **accuracy},
        "left_out": left_out,
        "ratios": ratios,
        "summary": {key: summarise([entry[key] for entry in rounds]) for key in rounds[0]},
        "rounds": rounds,
    }
    target = options.results / f"inference-{options.title or dataset.name}.json"
    write_results(target, script=__file__, arguments=arguments, content=content)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of this script."""
    parser = argument_parser(__file__, __doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64], help="numbers of pictures at once")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long an engine is timed in each round")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="engines whose name holds one of these, as in int8")
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--cache", type=Path, default=CACHE_FOLDER)
    options = parser.parse_args(arguments)
    if min(options.rounds, *options.batches) < 1:
        parser.error("give at least one round, and at least one picture a batch")
    return options


def chosen(name: str, only: Sequence[str] | None) -> bool:
    """Whether an engine is to be measured."""
    return not only or any(word.lower() in name.lower() for word in only)


def makers_of(network: nn.Module, dataset: DataSet) -> dict[str, Callable[[], Answer]]:
    """What makes each engine, by its name."""
    deployed = Deployed(network, temperature=1.0).eval()
    lean = copy.deepcopy(deployed).to(memory_format=torch.channels_last)
    graph = to_onnx(deployed, dataset.preprocessing.width)
    return {
        "PyTorch fp32": lambda: eager(deployed),
        "PyTorch bf16 channels_last": lambda: eager(lean, bf16=True),
        "PyTorch fp32 compiled": lambda: eager(torch.compile(deployed, dynamic=False)),
        "PyTorch bf16 channels_last compiled": lambda: eager(torch.compile(lean, dynamic=False), bf16=True),
        SERVED: lambda: onnx_runtime(graph),
        INT8: lambda: onnx_runtime(quantised(graph, dataset)),
    }


def eager(deployed: Callable[[Tensor], tuple[Tensor, Tensor]], *, bf16: bool = False) -> Answer:
    """PyTorch, with or without autocast."""

    def answer(pixels: Pixels) -> npt.NDArray[np.float32]:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return deployed(torch.from_numpy(pixels))[1].float().numpy()

    return answer


def onnx_runtime(graph: bytes) -> Answer:
    """ONNX Runtime with the settings of darkroom's server."""
    session = open_session(graph, torch.get_num_threads())
    return lambda pixels: session.run(OUTPUTS, {INPUT: pixels})[1]


def quantised(graph: bytes, dataset: DataSet) -> bytes:
    """The graph as `darkroom export --int8` makes it."""
    from darkroom.export.int8_bundle import calibration_batches
    from darkroom.export.quantise import quantise

    return quantise(graph, calibration_batches(dataset))


def batches(dataset: DataSet, sizes: Sequence[int]) -> dict[int, Pixels]:
    """Validation pictures (N, H, W, 3) for each batch size N."""
    ids = dataset.manifest.indices("validation")
    return {size: np.ascontiguousarray(dataset.pixels[np.resize(ids, size)]) for size in sizes}


def usable(
    makers: Mapping[str, Callable[[], Answer]], pixels: Mapping[int, Pixels]
) -> tuple[dict[str, Answer], dict[str, str]]:
    """Engines that have been made and have answered each batch size, and why the others have not."""
    engines, left_out = {}, {}
    for name, make in makers.items():
        start = time.perf_counter()
        try:
            with torch.no_grad():
                answer = make()
                for batch in pixels.values():
                    answer(batch)
        except (DarkroomError, RuntimeError) as error:  # no compiler on this machine, or nothing to quantise
            left_out[name] = " ".join(str(error).split())[:300]
            say(f"{name} is left out: {left_out[name]}")
        else:
            engines[name] = answer
            say(f"{name}: ready after {time.perf_counter() - start:.1f} s")
    return engines, left_out


def judged(dataset: DataSet) -> npt.NDArray[np.int64]:
    """Validation pictures, spread over the split: all, or so many whole chunks."""
    ids = dataset.manifest.indices("validation")
    number = min(JUDGED, max(CHUNK, len(ids) // CHUNK * CHUNK), len(ids))
    return ids[np.linspace(0, len(ids) - 1, number).round().astype(int)]


def judge(name: str, answer: Answer, dataset: DataSet) -> float:
    """Part of the judged pictures that an engine names rightly."""
    ids, labels = judged(dataset), dataset.manifest.labels()
    say(f"{name}: answering {len(ids):,} validation pictures")
    parts = [ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK)]
    right = [answer(np.ascontiguousarray(dataset.pixels[part])).argmax(1) == labels[part] for part in parts]
    return float(np.concatenate(right).mean())


def run_round(
    engines: Mapping[str, Answer], pixels: Mapping[int, Pixels], number: int, options: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """Median times of all engines at all batch sizes."""
    rows = {}
    for name in rotated(list(engines), number):
        for size, batch in pixels.items():
            seconds = median_seconds(engines[name], batch, seconds=options.seconds)
            rows[f"{name}, batch {size}"] = {"milliseconds": 1000 * seconds, "pictures_a_second": size / seconds}
            say(f"round {number + 1} of {options.rounds}: {name}, batch {size}: {1000 * seconds:.2f} ms")
    return rows


def median_seconds(answer: Answer, batch: Pixels, *, seconds: float) -> float:
    """Median time of an answer to `batch`, warmed up, of at least three calls."""
    for _ in range(WARM_UP):
        answer(batch)
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        start = time.perf_counter()
        answer(batch)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def ratios_of(rounds: Sequence[Mapping[str, Mapping[str, float]]], sizes: Sequence[int]) -> Iterator[dict[str, Any]]:
    """What darkroom serves beside PyTorch's ways, and int8 beside fp32."""
    names = sorted({key.rpartition(",")[0] for key in rounds[0]})
    pairs = [(SERVED, name) for name in names if name not in (SERVED, INT8)] + [(INT8, SERVED)]
    pairs = [pair for pair in pairs if set(pair) <= set(names)]
    for size in sizes:
        for name, peer in pairs:
            ours, theirs = (
                [row[f"{key}, batch {size}"]["pictures_a_second"] for row in rounds] for key in (name, peer)
            )
            yield ratio(f"{name}, batch {size}", peer=peer, ours=ours, theirs=theirs, unit="pictures/s")


if __name__ == "__main__":
    launch(main)
