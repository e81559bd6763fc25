"""What all commands share: options, settings from a file, what to type next, and how mistakes are told."""

import os
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import cyclopts
from cyclopts import Parameter

from darkroom.comparison.folder import Study
from darkroom.config import (
    AblateConfig,
    CompareConfig,
    DataConfig,
    ExportConfig,
    ServeConfig,
    StorageConfig,
    TrainConfig,
)
from darkroom.errors import DarkroomError, TrainingStoppedError, UsageError
from darkroom.progress import say
from darkroom.runs import Run
from darkroom.training import launch

EXIT_ERROR = 2
EXIT_STOPPED = 130
"""What shells report for Ctrl-C."""

FULL = "the memory is full: close other programs, or give --accumulate 4, a smaller --batch-size or --image-size"

EXTRAS = {
    **dict.fromkeys(("flask", "markdown_it", "onnxruntime", "prometheus_client", "waitress"), "serve"),
    **dict.fromkeys(("jinja2", "matplotlib", "nbformat", "pptx", "scipy", "sklearn", "typst", "yaml"), "report"),
    **dict.fromkeys(("timm", "huggingface_hub", "torchvision"), "transfer"),
    **dict.fromkeys(("grpc", "google"), "tf-client"),
    "tensorflow": "tf",
}
"""The extra that brings a package; of all others it is `train`."""

Data = Annotated[DataConfig, Parameter(name="*")]
Storage = Annotated[StorageConfig, Parameter(name="*")]
Training = Annotated[TrainConfig, Parameter(name="*")]
Flag = Annotated[bool, Parameter(negative="")]
AsJson = Annotated[bool, Parameter(name="--json", negative="")]
Serving = Annotated[ServeConfig, Parameter(name="*")]
Comparing = Annotated[CompareConfig, Parameter(name="*", consume_multiple=True)]
Ablating = Annotated[AblateConfig, Parameter(name="*", consume_multiple=True)]
Exporting = Annotated[ExportConfig, Parameter(name="*")]

DATA = DataConfig()
STORAGE = StorageConfig()
TRAINING = TrainConfig()
SERVING = ServeConfig()
EXPORTING = ExportConfig()
ABLATING = AblateConfig()
COMPARING = CompareConfig()


def read_toml(path: Path, commands: Collection[str]) -> dict[str, Any]:
    """The tables of a file; what stands in no command's table would be ignored, and is refused."""
    if not path.is_file():
        raise UsageError(f"--config {path} is no file: give a TOML file")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"--config {path} is not TOML: {error}") from error
    for name, table in tables.items():
        if name not in commands or not isinstance(table, dict):
            what = f"a table [{name}]" if isinstance(table, dict) else f"{name} outside of a command's table"
            raise UsageError(f"--config {path} has {what}: give tables of {', '.join(commands)}, as in [train]")
    return tables


@contextmanager
def resumable(command: str, data: str, place: Run | Study, config: DataConfig) -> Iterator[None]:
    """Say what to type to go on with what was stopped, in a training or, once it has begun, anywhere else."""
    try:
        yield
    except (TrainingStoppedError, KeyboardInterrupt) as error:
        if isinstance(error, KeyboardInterrupt) and not place.begun:
            raise
        called = "torchrun … -m darkroom" if launch.place().size > 1 else shlex.quote(program())
        again = shlex.join([command, data, "--out", str(place.folder), "--resume", *storage_options(config)])
        raise TrainingStoppedError(f"{str(error) or 'stopped'}; go on with: {called} {again}") from error


def program() -> str:
    """What to type for this program: its name where the shell finds it, else the path by which it was called."""
    called = Path(sys.argv[0])
    return sys.argv[0] if called.stem == "darkroom" and shutil.which("darkroom") is None else "darkroom"


def command() -> list[str]:
    """What starts this program from anywhere."""
    found = shutil.which(program())
    return [os.path.abspath(found)] if found else [sys.executable, "-m", "darkroom"]


def storage_options(config: DataConfig) -> list[str]:
    """The options with which a later command finds the same archive and cache."""
    cache = ["--cache", str(config.cache)] if config.cache != DATA.cache else []
    return cache + (["--archive", str(config.archive)] if config.archive is not None else [])


@contextmanager
def mistakes_told() -> Iterator[None]:
    """Errors of the user's become one line and exit code 2: the only place that exits."""
    try:
        yield
    except cyclopts.CycloptsError as error:
        _leave(f"error: {error}", EXIT_ERROR)
    except TrainingStoppedError as error:
        _leave(str(error), EXIT_STOPPED)
    except DarkroomError as error:
        _leave(f"error: {error}", EXIT_ERROR)
    except KeyboardInterrupt:
        _leave("stopped", EXIT_STOPPED)
    except BrokenPipeError:  # the reader of our output has gone; nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_ERROR)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0], "train")
        _leave(f"error: {error.name} is not installed: pip install 'darkroom[{extra}]'", EXIT_ERROR)
    except MemoryError:
        _leave(f"error: {FULL}", EXIT_ERROR)
    except RuntimeError as error:  # so PyTorch tells of it
        if not re.search("out of memory|can't allocate memory", str(error)):
            raise
        _leave(f"error: {FULL}", EXIT_ERROR)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        _leave(f"error: {error.strerror or error}{where}", EXIT_ERROR)


def _leave(message: str, code: int) -> NoReturn:
    say(f"darkroom: {' '.join(message.splitlines())}")
    sys.exit(code)
