"""What a network costs on this machine: seconds a picture to train, milliseconds and bytes to serve."""

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from darkroom.comparison.plan import Speed
from darkroom.data.batches import plain_batches
from darkroom.data.dataset import DataSet
from darkroom.engines.onnx_runtime import OnnxRuntimeEngine
from darkroom.models.inference import batch_size_for, best_device
from darkroom.training.machine import arrange, choose_arithmetic, timed

SECONDS = 0.5
"""How long each speed is measured."""

SERVING_SECONDS = 3.0
MANY = 32
"""Pictures in the larger of the two batches that serving is timed with."""

JOULES = Path("/sys/class/powercap/intel-rapl:0/energy_uj")
"""Where Linux tells what the processor has used, on machines that measure it and let users read it."""


def speed_of(name: str, network: nn.Module, dataset: DataSet) -> Speed:
    """Time a network on training pictures: forward in the arithmetic that is fastest here, in float32, and a step."""
    device, side = best_device(), dataset.preprocessing.width
    ids = dataset.manifest.indices("train")[: batch_size_for(side)]
    pictures = next(plain_batches(dataset.pixels, ids, batch_size=len(ids), device=device))
    labels = torch.zeros(len(ids), dtype=torch.long, device=device)
    arithmetic = choose_arithmetic(network, (pictures, labels), precision="auto", memory_format="auto")
    network = arrange(network, arithmetic)

    def forward(*, bf16: bool) -> None:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            network(pictures)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=arithmetic.bf16):
            loss = nn.functional.cross_entropy(network(pictures).float(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        network.zero_grad()

    network.eval()
    forward_seconds = median(timed(lambda: forward(bf16=arithmetic.bf16), seconds=SECONDS))
    answer_seconds = median(timed(lambda: forward(bf16=False), seconds=SECONDS))
    network.train()
    step_seconds = median(timed(step, seconds=SECONDS))
    return Speed(name, *(seconds / len(ids) for seconds in (forward_seconds, answer_seconds, step_seconds)))


@dataclass(frozen=True)
class Serving:
    """A bundle in ONNX Runtime: milliseconds for one picture (median, 5th and 95th percentile), pictures a second."""

    milliseconds: float
    low: float
    high: float
    pictures_a_second: float
    bytes: int
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
        bytes=sum(path.stat().st_size for path in bundle.iterdir()),
        calls=len(single),
    )


def _calls(engine: OnnxRuntimeEngine, pixels: npt.NDArray[np.uint8]) -> list[float]:
    """Seconds of each call, after a warm-up, for `SERVING_SECONDS`."""
    for _ in range(3):
        engine.run(pixels)
    durations: list[float] = []
    while len(durations) < 3 or sum(durations) < SERVING_SECONDS:
        start = time.perf_counter()
        engine.run(pixels)
        durations.append(time.perf_counter() - start)
    return durations


def joules() -> float | None:
    """Energy that the processor has used since some start; None where the machine does not tell."""
    try:
        return int(JOULES.read_text()) / 1e6
    except (OSError, ValueError):
        return None
