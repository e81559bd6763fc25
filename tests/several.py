"""What tests start with torchrun: darkroom with a checkpoint after every step, and parts of it by themselves."""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from darkroom.cli import main
from darkroom.errors import TrainingError
from darkroom.training import fit, launch
from darkroom.training.distributed import Team, joined
from darkroom.training.normalisation import share_statistics


def train(arguments: list[str]) -> None:
    """`darkroom`, of which a process sends itself a signal once where SIGNAL says so: its number, the rank, the step.

    As on machines that share no disk, each process works in a folder of its own, named after its rank, in APART.
    """
    here = Path(os.environ["APART"]) / os.environ["RANK"]
    here.mkdir(exist_ok=True)
    os.chdir(here)
    fit.fit.__kwdefaults__["checkpoint_seconds"] = 0.0
    if "SIGNAL" in os.environ and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        number, rank, step = map(int, os.environ["SIGNAL"].split())
        steps, agree = count(1), Team.agree

        def agree_until(team: Team, **said: Any) -> Any:
            if next(steps) == step and team.rank == rank:
                os.kill(os.getpid(), number)
            return agree(team, **said)

        Team.agree = agree_until  # type: ignore[method-assign]
    launch.hush_followers()
    main(arguments)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.GELU(), nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4)]
    return nn.Sequential(*layers, nn.GELU(), nn.Flatten(), nn.Linear(4 * 16, 4))


def numbers_of(model: nn.Module, loss: Tensor) -> Iterator[Tensor]:
    yield loss
    for parameter in model.parameters():
        assert parameter.grad is not None
        yield parameter.grad
    yield from model.buffers()


def normalise() -> None:
    """Loss, gradients and running statistics of a whole batch in one process against those of its shares in all."""
    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(1)
    pictures, labels = torch.randn(13, 3, 8, 8, generator=random) * 5 + 3, torch.arange(13) % 4
    with joined() as team:
        whole, shared = network(0), network(team.rank)
        share_statistics(shared)
        team.copy_leader(shared, None)
        part = slice(team.rank, None, team.size)
        for _ in range(2):
            losses = []
            for model, mine in ((whole, slice(None)), (shared, part)):
                model.zero_grad()
                loss = nn.functional.cross_entropy(model(pictures[mine]), labels[mine], reduction="sum") / 13
                loss.backward()
                losses.append(loss.detach()[None])
            losses[1] = team.sum_gradients(shared, losses[1])
        pairs = zip(numbers_of(whole, losses[0]), numbers_of(shared, losses[1]), strict=True)
        differences = [float((one - other).abs().max()) for one, other in pairs]
        if team.leads:
            print(json.dumps(differences))


def hang() -> None:
    """The last process falls silent; the others say after how many seconds they gave it up."""
    with joined(lost_after=timedelta(seconds=2)) as team:
        team.sum_numbers(1.0)
        start = time.monotonic()
        if team.rank == team.size - 1:
            time.sleep(600)
        try:
            team.sum_numbers(1.0)
        except TrainingError as error:
            print(json.dumps([time.monotonic() - start, str(error)]), flush=True)
            sys.exit(2)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    {"normalise": normalise, "hang": hang}.get(sys.argv[1], lambda: train(sys.argv[1:]))()
