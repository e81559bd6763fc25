"""One training in several processes that torchrun starts: each computes on its share of every batch.

All hold the same weights, and take the same steps from the same summed gradients. Rank 0 leads: it prepares the data,
decides, writes and prints; what it has written it sends to the others, so that machines need not share a disk.
"""

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from darkroom.errors import TrainingError, TrainingStoppedError, UsageError
from darkroom.progress import console
from darkroom.runs import Run
from darkroom.training import launch

Value = TypeVar("Value")

LOST_AFTER = timedelta(minutes=5)
"""A process that lets the others wait so long during training is given up; one that has died is noticed at once."""

PREPARATION = timedelta(days=7)
"""How long the others wait while one process downloads and decodes."""


NOWHERE = launch.Place()


@dataclass(frozen=True)
class Team:
    """The processes of one training; a process that is alone exchanges nothing."""

    place: launch.Place = NOWHERE
    patient: "dist.ProcessGroup | None" = None
    """All of them, to wait for what takes longer than a step."""

    @property
    def rank(self) -> int:
        """Number of this process."""
        return self.place.rank

    @property
    def size(self) -> int:
        """Number of processes."""
        return self.place.size

    @property
    def leads(self) -> bool:
        """Whether this process decides, writes and prints for all."""
        return self.place.leads

    def copy_leader(self, *modules: nn.Module | None) -> None:
        """Give the leader's weights to all: another kind of machine may have rounded otherwise what it made itself."""
        for module in modules if self.size > 1 else ():
            if module is not None:
                module.load_state_dict(self._sent({name: value.cpu() for name, value in module.state_dict().items()}))

    def sum_gradients(self, network: nn.Module, totals: Tensor) -> Tensor:
        """Add up the gradients of all shares in place and, in the same message, `totals` (n,), which is returned."""
        if self.size == 1:
            return totals
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        message = sum_over_all(torch.cat([*(gradient.reshape(-1) for gradient in gradients), totals]))
        *parts, summed = torch.split(message, [*(gradient.numel() for gradient in gradients), len(totals)])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))
        result: Tensor = summed
        return result

    def sum_numbers(self, *numbers: float) -> list[float]:
        """Sums over all processes."""
        if self.size == 1:
            return list(numbers)
        return sum_over_all(torch.tensor(numbers, dtype=torch.float64)).tolist()

    def agree(self, *, stop: bool, save: bool, steps: int) -> tuple[bool, bool, int]:
        """The same for all: stop if any was asked to; whether to save and the steps planned are the leader's to say."""
        if self.size == 1:
            return stop, save, steps
        said = torch.tensor([stop, self.leads and save, steps if self.leads else 0])
        with told_when_lost():
            dist.all_reduce(said, dist.ReduceOp.MAX)
        stopping, saving, planned = said.tolist()
        return bool(stopping), bool(saving), planned

    def gather(self, value: Value) -> list[Value]:
        """What every process has, by rank, on the leader; nothing elsewhere."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with told_when_lost():
            dist.gather_object(value, values if self.leads else None)
        return values if self.leads else []

    @contextmanager
    def handed_out(self, run: Run, *, goes_on: bool) -> Iterator[Run | None]:
        """What the leader has written: for it the run itself, for others a copy; None unless the leader `goes_on`."""
        if self.size == 1:
            yield run if goes_on else None
            return
        parts = [path for path in (run.config, run.manifest, run.checkpoint) if self.leads and path.exists()]
        content = self._sent({path.name: path.read_bytes() for path in parts} if goes_on else None)
        if content is None or self.leads:
            yield run if content is not None else None
            return
        with tempfile.TemporaryDirectory(prefix="darkroom-") as folder:
            for name, data in content.items():
                (Path(folder) / name).write_bytes(data)
            yield Run(Path(folder))

    def in_turn(self, opens: Callable[[], Value]) -> Value:
        """Call `opens` in one process of every machine first: it may decode pictures that the others find decoded."""
        if self.place.local_rank == 0:
            value = opens()
        self._wait_for_all()
        if self.place.local_rank > 0:
            value = opens()
        self._wait_for_all()
        return value

    def _sent(self, value: Value) -> Value:
        """The leader's `value`, everywhere."""
        values = [value]
        with told_when_lost():
            dist.broadcast_object_list(values, group=self.patient)
        return values[0]

    def _wait_for_all(self) -> None:
        if self.size > 1:
            with told_when_lost():
                dist.barrier(self.patient)


ALONE = Team()


@contextmanager
def joined(*, lost_after: timedelta = LOST_AFTER) -> Iterator[Team]:
    """The team that torchrun made this process part of, or a process alone; of an error that ends it, one tells.

    Raises:
        UsageError: there are more processes than GPUs on this machine.
        TrainingError: another process was lost.
    """
    place = launch.place()
    if place.size == 1:
        yield ALONE
        return
    use_own_gpu(place)
    console.quiet = not place.leads
    with told_when_lost():
        store, rank, size = next(rendezvous("env://"))
        # torchrun --max-restarts starts all again with the same store, where addresses of the dead still stand.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(f"darkroom/{attempt}", store)  # type: ignore[attr-defined]
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=lost_after)
        patient = dist.new_group(backend="gloo", timeout=PREPARATION)
    try:
        yield Team(place, patient)
    except BaseException as error:
        # When one process is lost torchrun ends the others, which would be silent if that came before their words.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        console.quiet = not _speaks(error, place, store)
        raise
    dist.destroy_process_group()


def use_own_gpu(place: launch.Place) -> None:
    """Give each process of a machine a GPU of its own, where there are any."""
    if not torch.cuda.is_available():
        return
    if place.local_size > torch.cuda.device_count():
        raise UsageError(
            f"--nproc-per-node is {place.local_size}, but this machine has {torch.cuda.device_count()} GPUs: "
            "give as many processes as there are GPUs"
        )
    torch.cuda.set_device(place.local_rank)


def _speaks(error: BaseException, place: launch.Place, store: Any) -> bool:
    """Whether this process tells of the error: the leader where all stop together, else the first to meet one."""
    if isinstance(error, TrainingStoppedError):
        return place.leads
    try:
        return bool(store.add("errors", 1) == 1)
    except RuntimeError:  # the store went with the machine that is lost
        return True


def sum_over_all(values: Tensor) -> Tensor:
    """Sum `values` over all processes, in place."""
    with told_when_lost():
        dist.all_reduce(values)
    return values


@contextmanager
def told_when_lost() -> Iterator[None]:
    """Say in one line what gloo and NCCL tell in many ways; raises `TrainingError`."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0].rpartition(".cc:")[2].partition("] ")[2].partition(". ")[0]
        raise TrainingError(
            f"another process of this training was lost ({reason[:100] or type(error).__name__}): "
            "start all again with --resume, and they go on from the last checkpoint"
        ) from error
