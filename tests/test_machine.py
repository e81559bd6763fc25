"""Arithmetic is chosen by measuring; the measurements here are fakes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from darkroom.errors import UsageError
from darkroom.training import machine
from darkroom.training.machine import Arithmetic, arrange, choose_arithmetic, timed
from training import CPU, training

FP32, FP32_LAST, BF16, BF16_LAST = ALL = tuple(
    Arithmetic(bf16=bf16, channels_last=last) for bf16 in (False, True) for last in (False, True)
)
Seconds = dict[Arithmetic, float]


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8 * 36, 2))


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(4, 3, 8, 8), torch.eye(2)[[0, 1, 0, 1]]


def chosen(
    monkeypatch: pytest.MonkeyPatch,
    seconds: Seconds,
    *,
    precision: machine.Precision = "auto",
    layout: machine.MemoryFormat = "auto",
    bf16_supported: bool = True,
) -> tuple[Arithmetic, list[Arithmetic]]:
    """What is chosen, and what was measured for it."""
    tried: list[Arithmetic] = []

    def fake(network: nn.Module, batch: object, arithmetic: Arithmetic) -> float:
        tried.append(arithmetic)
        return seconds[arithmetic]

    monkeypatch.setattr(machine, "_step_seconds", fake)
    monkeypatch.setattr(machine, "supports_bf16", lambda where: bf16_supported)
    return choose_arithmetic(network(), batch(), precision=precision, memory_format=layout), tried


@pytest.mark.parametrize("fastest", [FP32, FP32_LAST, BF16, BF16_LAST])
def test_the_fastest_is_chosen(monkeypatch: pytest.MonkeyPatch, fastest: Arithmetic) -> None:
    seconds = dict.fromkeys(ALL, 1.0) | {fastest: 0.5}
    best, tried = chosen(monkeypatch, seconds)
    assert best == fastest
    assert len(tried) == 4


def test_a_draw_goes_to_plain_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(monkeypatch, {FP32: 1.0, FP32_LAST: 0.97, BF16: 0.99, BF16_LAST: 0.85})[0] == FP32


@pytest.mark.parametrize("wind", [0.9, 1.0, 1.1])
def test_noise_does_not_decide_between_layouts(monkeypatch: pytest.MonkeyPatch, wind: float) -> None:
    """Two runs of one seed would not agree to the bit."""
    seconds = {FP32: 1.0, FP32_LAST: 1.05 * wind, BF16: 0.5 * wind, BF16_LAST: 0.5}
    assert chosen(monkeypatch, seconds)[0] == BF16_LAST
    assert chosen(monkeypatch, seconds, precision="fp32")[0] == FP32


def test_bf16_is_not_even_tried_where_it_is_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    best, tried = chosen(monkeypatch, {FP32: 1.0, FP32_LAST: 0.7}, bf16_supported=False)
    assert best == FP32_LAST
    assert tried == [FP32, FP32_LAST]


def test_what_the_user_says_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {FP32: 1.0, FP32_LAST: 0.1, BF16: 0.5, BF16_LAST: 0.2}
    assert chosen(monkeypatch, seconds, precision="bf16") == (BF16_LAST, [BF16_LAST, BF16])
    assert chosen(monkeypatch, seconds, layout="contiguous") == (BF16, [FP32, BF16])
    assert chosen(monkeypatch, seconds, precision="fp32", layout="contiguous") == (FP32, [])
    assert chosen(monkeypatch, seconds, precision="bf16", layout="channels-last", bf16_supported=False)[0] == BF16_LAST


def test_measuring_leaves_network_and_randomness_alone() -> None:
    net, pictures = network(), batch()
    state = torch.get_rng_state()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    choose_arithmetic(net, pictures, precision="auto", memory_format="auto")
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_arrange_sets_the_layout() -> None:
    net = network()
    weight = arrange(net, FP32_LAST)[0].weight  # type: ignore[index]
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert arrange(net, FP32)[0].weight.is_contiguous()  # type: ignore[index]


def test_arithmetic_in_words() -> None:
    assert (BF16_LAST.describe(), FP32.describe()) == ("bf16, channels_last", "fp32, contiguous")


def test_timed_warms_up_and_bounds_its_runs() -> None:
    runs: list[int] = []
    assert len(timed(lambda: runs.append(1), seconds=1e9, most=7)) == 7
    assert len(runs) == 8
    assert len(timed(lambda: runs.append(1), seconds=0.0)) == 2


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        assert machine.use_threads(1) == 1 == torch.get_num_threads()
        assert machine.use_threads(None) == len(os.sched_getaffinity(0))
    finally:
        torch.set_num_threads(before)


def test_bf16_needs_a_compiled_in_library(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(machine.supports_bf16(CPU), bool)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert machine.supports_bf16(CPU) is False


@pytest.mark.parametrize(
    ("together", "alone", "chosen"), [(0.01, 0.005, 1), (0.01, 0.009, 3), (0.01, 0.02, 3), (0.1, 0.05, 3)]
)
def test_one_thread_where_it_is_clearly_faster(
    monkeypatch: pytest.MonkeyPatch, together: float, alone: float, chosen: int
) -> None:
    """In long steps it never is, and that is not even measured."""

    def fake(network: nn.Module, batch: object, arithmetic: Arithmetic) -> float:
        return alone if torch.get_num_threads() == 1 else together

    monkeypatch.setattr(machine, "_step_seconds", fake)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert machine.choose_threads(network(), batch(), FP32) == chosen
        assert torch.get_num_threads() == chosen
    finally:
        torch.set_num_threads(before)


FAULTS = """
import resource, sys, torch
from darkroom.training.machine import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else False
for round in range(20):
    tensors = [torch.zeros(size, 2**20) for size in (12, 16, 20)]  # above what glibc may learn to keep by itself
    if round == 4:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    del tensors
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's options, so Linux only")
def test_memory_that_is_kept_is_not_faulted_in_again() -> None:
    kept, faults = page_faults("keep")
    if not kept:
        pytest.skip("this C library has no mallopt")
    assert faults < page_faults("return")[1] / 10


def page_faults(what: str) -> tuple[int, int]:
    result = subprocess.run([sys.executable, "-c", FAULTS, what], capture_output=True, text=True, check=True)
    kept, faults = result.stdout.split()
    return int(kept), int(faults)


def test_a_missing_compiler_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(function: object) -> None:
        raise RuntimeError("no C++ compiler found\nand a long trace")

    monkeypatch.setattr(torch, "compile", fails)
    with pytest.raises(UsageError, match=r"--compile does not work here \(no C\+\+ compiler found\): install"):
        machine.require_compiler(CPU)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
@pytest.mark.filterwarnings("default")
def test_a_compiled_training_is_the_same_but_for_rounding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "required"))
    machine.require_compiler(CPU)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "trained"))
    plain, compiled = training(epochs=1), training(epochs=1)
    compiled.arithmetic = Arithmetic(bf16=False, channels_last=False, compiled=True)
    expected, got = plain.fit(plain.state()), compiled.state()
    machine.arrange(got.network, compiled.arithmetic)
    compiled.fit(got)
    assert list((tmp_path / "trained").rglob("*.so")), "the network was compiled"
    assert expected.network.state_dict().keys() == got.network.state_dict().keys()
    for name, value in expected.network.state_dict().items():
        torch.testing.assert_close(got.network.state_dict()[name], value, rtol=0, atol=2e-3)
