"""What torchrun tells each process that it starts; read without importing torch."""

import os
import sys
from dataclasses import dataclass

from darkroom.errors import UsageError
from darkroom.progress import console

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@dataclass(frozen=True)
class Place:
    """The place of this process among all (`rank` of `size`) and among those on this machine; rank 0 leads."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process decides, writes and prints for all."""
        return self.rank == 0


def place() -> Place:
    """Where torchrun has put this process; a process started without it is alone."""
    if not os.environ.keys() >= {*NAMES, "MASTER_ADDR", "MASTER_PORT"}:
        return Place()
    return Place(*(int(os.environ[name]) for name in NAMES))


def hush_followers() -> None:
    """Let only the leader be seen; an error that it cannot know of is told by whoever meets it."""
    if not place().leads:
        console.quiet = True
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives


def refuse_several(command: str) -> None:
    """Raise `UsageError` where torchrun started several processes for what is one process's work."""
    if place().size > 1:
        raise UsageError(
            f"{command} is the work of one process: leave torchrun to `train`, then `darkroom run DATA --out RUN "
            "--resume` does all the rest"
        )
