"""What this machine computes fastest: measured in about two seconds, not guessed."""

import copy
import ctypes
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from darkroom.config import MemoryFormat, Precision
from darkroom.errors import UsageError
from darkroom.provenance import available_cores
from darkroom.training import launch

PROBE_PICTURES, PROBE_SECONDS = 32, 0.2
LONG_STEP = 0.05
"""Seconds of a step in which threads do not wait for each other in the main."""
MARGIN = 0.8
"""Something else must take at most this part of the time to be preferred: where the gain is small, noise would decide,
and two runs of one seed would differ."""

MALLOC_OPTIONS = ((-8, 1), (-3, 1 << 30), (-1, (1 << 31) - 1))
"""M_ARENA_MAX, M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of glibc's <malloc.h>."""


@dataclass(frozen=True)
class Arithmetic:
    """How the forward and backward pass are computed: number format, memory layout, and whether they are compiled."""

    bf16: bool
    channels_last: bool
    compiled: bool = False

    def describe(self) -> str:
        """In words, for people."""
        words = ["bf16" if self.bf16 else "fp32", "channels_last" if self.channels_last else "contiguous"]
        return ", ".join([*words, "compiled"] if self.compiled else words)


def use_threads(threads: int | None) -> int:
    """Set PyTorch's threads (when None, this process's part of the usable cores) and say how many there are.

    It also frees them of page faults, by `keep_freed_memory`.
    """
    keep_freed_memory()
    torch.set_num_threads(threads or max(1, available_cores() // launch.place().local_size))
    return torch.get_num_threads()


def keep_freed_memory() -> bool:
    """Have glibc keep what PyTorch frees, and say whether it does; other systems are left as they are.

    By default every large tensor is a mapping of its own, given back to the kernel when it is freed, and its pages are
    faulted in and zeroed again in the next step: a third of the time of a step (docs/lab-notes.md). One arena, since
    those of other threads, in which the backward pass runs, cannot hold more than 64 MiB.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and all(mallopt(option, value) for option, value in MALLOC_OPTIONS)


def supports_bf16(where: torch.device) -> bool:
    """Whether bfloat16 is computed natively; emulation is slower than float32."""
    if where.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    compiled_in = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(compiled_in and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def choose_arithmetic(
    network: nn.Module, batch: tuple[Tensor, Tensor], *, precision: Precision, memory_format: MemoryFormat
) -> Arithmetic:
    """The plainest combination left open that no other clearly beats, by timing passes on a copy of the network.

    Plainest first: contiguous before channels_last in fp32, the other way round in bf16, which was made for it.
    """
    where = batch[0].device
    precisions = [False, True] if supports_bf16(where) else [False]
    if precision != "auto":
        precisions = [precision == "bf16"]
    layouts = [False, True] if memory_format == "auto" else [memory_format == "channels-last"]
    pairs = [(bf16, last) for bf16 in precisions for last in (reversed(layouts) if bf16 else layouts)]
    choices = [Arithmetic(bf16=bf16, channels_last=last) for bf16, last in pairs]
    if len(choices) == 1:
        return choices[0]
    # On an accelerator a few pictures would measure how fast kernels are launched.
    most = PROBE_PICTURES if where.type == "cpu" else len(batch[0])
    small = (batch[0][:most], batch[1][:most])
    with torch.random.fork_rng(devices=[]):  # dropout in the probe must not shift the randomness of training
        seconds = {choice: _step_seconds(network, small, choice) for choice in choices}
    least = min(seconds.values())
    return next(choice for choice in choices if MARGIN * seconds[choice] <= least)


def choose_threads(network: nn.Module, batch: tuple[Tensor, Tensor], arithmetic: Arithmetic) -> int:
    """One thread where it is clearly faster than all that are set: for tiny networks, threads mostly wait."""
    most = torch.get_num_threads()
    if most == 1 or batch[0].device.type != "cpu":
        return most
    small = (batch[0][:PROBE_PICTURES], batch[1][:PROBE_PICTURES])
    with torch.random.fork_rng(devices=[]):
        together = _step_seconds(network, small, arithmetic)
        if together > LONG_STEP:
            return most
        torch.set_num_threads(1)
        alone = _step_seconds(network, small, arithmetic)
    torch.set_num_threads(chosen := 1 if alone < MARGIN * together else most)
    return chosen


def _step_seconds(network: nn.Module, batch: tuple[Tensor, Tensor], arithmetic: Arithmetic) -> float:
    trial = arrange(copy.deepcopy(network).train(), arithmetic)

    def step() -> None:
        with torch.autocast(batch[0].device.type, torch.bfloat16, enabled=arithmetic.bf16):
            loss = nn.functional.cross_entropy(trial(batch[0]).float(), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]

    return median(timed(step, seconds=PROBE_SECONDS))


def timed(step: Callable[[], object], *, seconds: float, most: int = 20) -> list[float]:
    """Durations of `step` after one warm-up: at least two, until `seconds` have passed."""
    step()
    _synchronise()
    durations: list[float] = []
    while len(durations) < 2 or (sum(durations) < seconds and len(durations) < most):
        start = time.perf_counter()
        step()
        _synchronise()
        durations.append(time.perf_counter() - start)
    return durations


def arrange(network: nn.Module, arithmetic: Arithmetic) -> nn.Module:
    """Put the network's filters into the chosen memory layout, and have its calls compiled if wanted, in place."""
    layout = torch.channels_last if arithmetic.channels_last else torch.contiguous_format
    arranged: nn.Module = network.to(memory_format=layout)  # type: ignore[call-overload]
    if arithmetic.compiled:
        on_cuda = next(arranged.parameters()).device.type == "cuda"
        # CUDA graphs spare launching each kernel; each of the two sizes of a batch gets a graph of its own.
        arranged.compile(mode="reduce-overhead" if on_cuda else None, dynamic=False)
    return arranged


def require_compiler(where: torch.device) -> None:
    """Raise `UsageError` where `torch.compile` does not work: it needs a C++ compiler, and Triton on a GPU."""
    try:
        torch.compile(torch.neg)(torch.ones(2, device=where))
    except Exception as error:  # of many kinds, by what is missing
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise UsageError(f"--compile does not work here ({reason}): install a C++ compiler, or leave it out") from error


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
