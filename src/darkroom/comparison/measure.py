"""What a network costs on this machine: seconds a picture to train, milliseconds and bytes to serve, energy."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from darkroom.bundle import MODEL_FILE
from darkroom.comparison.plan import Speed
from darkroom.data.dataset import DataSet
from darkroom.engines.onnx_runtime import OnnxRuntimeEngine
from darkroom.models.inference import best_device
from darkroom.training.fit import forward_backward
from darkroom.training.machine import Arithmetic, arrange, choose_arithmetic, choose_threads, timed, use_threads
from darkroom.training.recipes import Settings
from darkroom.training.train import make_batches, optimiser_of

PICTURES = 8
"""With which the speed of a network is measured on a processor: few, since a step of a large one takes seconds."""

SECONDS = 0.5
"""How long each speed is measured."""

SERVING_SECONDS = 3.0
MANY = 32
"""Pictures in the larger of the two batches that serving is timed with."""

POWERCAP = Path("/sys/class/powercap")
"""Where Linux tells what each processor package has used, on machines that measure it and let users read it."""


def speed_of(name: str, network: nn.Module, dataset: DataSet, settings: Settings) -> Speed:
    """Time a network on views of training pictures: forward in the arithmetic that is fastest here, in float32, a step.

    The network is trained a little by it, and of no more use.
    """
    use_threads(None)
    # On an accelerator a few pictures would measure how fast kernels are launched.
    size = PICTURES if best_device().type == "cpu" else settings.batch_size
    batches = make_batches(dataset, replace(settings, batch_size=size), seed=0)
    endless = (batch for _ in iter(int, 1) for batch in batches.epoch(0))
    pictures, targets = next(endless)
    arithmetic = choose_arithmetic(network, (pictures, targets), precision="auto", memory_format="auto")
    threads = choose_threads(network, (pictures, targets), arithmetic)
    network = arrange(network, arithmetic)
    optimiser = optimiser_of(network, settings)

    def forward(*, bf16: bool) -> None:
        with torch.no_grad(), torch.autocast(pictures.device.type, torch.bfloat16, enabled=bf16):
            network(pictures)

    def gradients() -> None:
        forward_backward(network, optimiser, *next(endless), settings, arithmetic, None)

    def seconds(call: Callable[[], None]) -> float:
        return median(timed(call, seconds=SECONDS))

    network.eval()
    answer = seconds(lambda: forward(bf16=False))
    fastest = seconds(lambda: forward(bf16=True)) if arithmetic.bf16 else answer
    network.train()
    count = len(pictures)
    step = seconds(gradients) / count + seconds(optimiser.step) / settings.batch_size
    return Speed(name, fastest / count, answer / count, step, **options_of(arithmetic, threads))


def options_of(arithmetic: Arithmetic, threads: int) -> dict[str, Any]:
    """What `TrainConfig` takes for that arithmetic, so that it is not measured again."""
    return {
        "precision": "bf16" if arithmetic.bf16 else "fp32",
        "memory_format": "channels-last" if arithmetic.channels_last else "contiguous",
        "threads": threads,
    }


@dataclass(frozen=True)
class Serving:
    """A bundle in ONNX Runtime: milliseconds for one picture (median, 5th and 95th percentile), pictures a second."""

    milliseconds: float
    low: float
    high: float
    pictures_a_second: float
    bytes: int
    """Of its graph: cards and golden pictures differ from run to run."""
    calls: int


def serving_of(bundle: Path, dataset: DataSet) -> Serving:
    """Time a bundle on validation pictures, one at a time and `MANY` at once."""
    ids = np.resize(dataset.manifest.indices("validation"), MANY)
    pixels = np.ascontiguousarray(dataset.pixels[ids])
    with OnnxRuntimeEngine.open(bundle) as engine:
        single = [1000 * seconds for seconds in _calls(engine, pixels[:1])]
        many = _calls(engine, pixels)
    low, high = np.percentile(single, (5, 95))
    return Serving(
        milliseconds=median(single),
        low=float(low),
        high=float(high),
        pictures_a_second=MANY / median(many),
        bytes=(bundle / MODEL_FILE).stat().st_size,
        calls=len(single),
    )


def _calls(engine: OnnxRuntimeEngine, pixels: npt.NDArray[np.uint8]) -> list[float]:
    """Seconds of each call, after a warm-up, for `SERVING_SECONDS`."""
    engine.run(pixels)
    durations: list[float] = []
    while len(durations) < 3 or sum(durations) < SERVING_SECONDS:
        start = time.perf_counter()
        engine.run(pixels)
        durations.append(time.perf_counter() - start)
    return durations


def energy_counters() -> dict[Path, int]:
    """Microjoules that each processor package has counted so far; empty where the machine does not tell."""
    try:
        zones = [zone for zone in POWERCAP.glob("intel-rapl:*") if (zone / "name").read_text().startswith("package")]
        return {zone: int((zone / "energy_uj").read_text()) for zone in zones}
    except (OSError, ValueError):
        return {}


def joules_since(before: Mapping[Path, int]) -> float | None:
    """Energy that all packages have used since; None where the machine does not tell.

    A counter that has reached its end begins anew, which is noticed once.
    """
    now = energy_counters()
    if not before or now.keys() != before.keys():
        return None
    try:
        used = [(now[zone] - before[zone]) % (int((zone / "max_energy_range_uj").read_text()) + 1) for zone in before]
    except (OSError, ValueError):
        return None
    return sum(used) / 1e6
