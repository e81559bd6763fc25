"""A training step as it is and through `torch.compile`, and how long compiling takes, anew and from its cache.

    python benchmarks/compiling.py DATA [--rounds 5] [--seconds 10] [any option of `darkroom train`]

A step is augmentation, forward, backward and optimiser, with the network, arithmetic and threads that `darkroom train`
settles on. The two take turns, and each round begins with the other one. From its cache a step is compiled again in the
same process. `break_even` is how many seconds a training must take for what compiling saves to pay for compiling:
none where it saves nothing.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from darkroom.data.dataset import DataSet, prepare
from darkroom.models.networks import architecture_of
from darkroom.training import machine
from darkroom.training.candidates import candidate_of
from darkroom.training.machine import Arithmetic
from darkroom.training.recipes import Settings
from darkroom.training.settle import settle, step_to_time
from darkroom.training.train import make_batches
from measuring import (
    argument_parser,
    darkroom_options,
    launch,
    processor_only,
    ratio,
    rotated,
    short_name,
    show,
    spread,
    write_results,
)

Step = Callable[[], None]


def main(arguments: Sequence[str]) -> None:
    """Rounds, table, file."""
    parser = argument_parser(__file__, __doc__)
    parser.add_argument("data")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each is timed in a round")
    options, words = parser.parse_known_args(arguments)
    processor_only()
    data_config, config = darkroom_options(options.data, words)
    dataset = prepare(options.data, data_config)
    content = settle(dataset, data_config=data_config, config=replace(config, minutes=None))
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        compile_seconds = {}
        for how in ("anew", "from its cache"):
            torch._dynamo.reset()
            compiled = step_of(dataset, content, compiled=True)
            compile_seconds[how] = seconds_of(compiled)
        steps = {"eager": step_of(dataset, content, compiled=False), "compiled": compiled}
        for step in steps.values():
            seconds_of(step)
        rounds = [run_round(steps, number, seconds=options.seconds) for number in range(options.rounds)]
    times = {name: [row[name] for row in rounds] for name in steps}
    saved = statistics.fmean(1 - row["compiled"] / row["eager"] for row in rounds)
    ratios = [
        ratio(
            "training step, compiled",
            peer="eager",
            ours=times["compiled"],
            theirs=times["eager"],
            unit="ms",
            less_is_better=True,
        )
    ]
    show(ratios)
    result = {
        "what_counts": __doc__.partition("\n\n")[2],
        "n": options.rounds,
        "arithmetic": content["training"]["arithmetic"],
        "parameters": content["network"]["parameters"],
        "ratios": ratios,
        "summary": {name: spread(values) for name, values in times.items()},
        "compile_seconds": compile_seconds,
        "break_even": {how: seconds / saved if saved > 0 else None for how, seconds in compile_seconds.items()},
        "rounds": rounds,
    }
    print({key: result[key] for key in ("compile_seconds", "break_even")})
    target = options.results / f"compiling-{options.title or short_name(options.data)}.json"
    write_results(target, script=__file__, arguments=arguments, content=result)


def step_of(dataset: DataSet, content: dict[str, Any], *, compiled: bool) -> Step:
    """One step after the other of the training that `content` of a config.json describes."""
    training, seed = content["training"], content["seed"]
    settings = Settings.from_json(training["settings"])
    arithmetic = Arithmetic(**training["arithmetic"] | {"compiled": compiled})
    architecture = architecture_of(content["network"])
    normalisation = (training["mean"], training["std"])
    network = candidate_of(content["network"]).new(dataset, architecture, seed=seed, normalisation=normalisation)
    network = machine.arrange(network, arithmetic)
    batches = make_batches(dataset, settings, seed=seed)
    return step_to_time(network, settings, batches, arithmetic, side=architecture.image_size)


def seconds_of(step: Step) -> float:
    """Wall seconds of one step."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def run_round(steps: dict[str, Step], number: int, *, seconds: float) -> dict[str, float]:
    """Median milliseconds of each kind of step."""
    row = {}
    for name in rotated(list(steps), number):
        row[name] = 1000 * statistics.median(machine.timed(steps[name], seconds=seconds, most=10**6))
    return row


if __name__ == "__main__":
    launch(main)
