"""What each command does, as one function; `run_all` chains them.

Whatever imports torch or draws is imported inside the functions, so that the command line answers at once and a server
needs neither.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.config import DataConfig, TrainConfig
from darkroom.errors import BundleError, RunError, UsageError
from darkroom.progress import say
from darkroom.runs import Run

if TYPE_CHECKING:
    from darkroom.data.doctor import Report

RUNS = Path("runs")


def examine(data: str, config: DataConfig) -> "Report":
    """What the doctor finds in a data set; nothing of the user's is written."""
    from darkroom.data.dataset import inspect_source
    from darkroom.data.doctor import examine as examine_source
    from darkroom.data.manifest import build_manifest
    from darkroom.errors import DataError

    source, inspections = inspect_source(data, config)
    try:
        manifest = build_manifest(source, inspections, config)
    except DataError as error:
        say(f"cannot be split as it is: {error}")
        manifest = None
    return examine_source(source, inspections, manifest, config)


def train(
    data: str,
    run: Run,
    *,
    data_config: DataConfig,
    config: TrainConfig,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Prepare a data set and train a network on it, or go on with a training that was interrupted."""
    if config.model != "cnn":
        raise UsageError(f"--model is {config.model}: only cnn, our own network, can be trained so far")
    claim(run, resume=resume, overwrite=overwrite)
    with _held(run):
        _train(data, run, data_config, config, resume=resume, overwrite=overwrite)


def _train(data: str, run: Run, data_config: DataConfig, config: TrainConfig, *, resume: bool, overwrite: bool) -> None:
    from darkroom.data.dataset import prepare, reopen
    from darkroom.training.illustrate import illustrate
    from darkroom.training.train import begin, carry_on, require_same, settle

    if resume and run.config.exists():
        require_same(run, data, data_config=data_config, config=config)
        if run.trained:
            say(f"{run.folder} is trained already")
            return
        dataset = reopen(run, data_config)
    else:
        if resume:
            say(f"{run.folder} holds nothing to resume: starting anew")
        dataset = prepare(data, data_config)
        content = settle(dataset, data_config=data_config, config=config)
        if overwrite:  # only now: what cannot be trained must not cost the run that was there
            run.clear()
        begin(dataset, run, content)
    illustrate(run, dataset)
    carry_on(dataset, run)


def claim(run: Run, *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that holds a run, unless the user says that it is to be resumed or replaced."""
    if resume and overwrite:
        raise UsageError("--resume and --overwrite contradict each other: give one of them")
    if run.folder.exists() and not run.folder.is_dir():
        raise UsageError(f"--out {run.folder} is a file: give a folder")
    if run.holds() and not run.begun:
        raise UsageError(f"{run.folder} holds no run, but files that one would replace: give another --out")
    if run.holds() and not (resume or overwrite):
        raise RunError(f"{run.folder} already holds a run: --resume it, --overwrite it, or give another --out")


def evaluate(run: Run, *, split: str, data_config: DataConfig) -> dict[str, Any]:
    """Measure a trained run on a split, and return the content of metrics.json."""
    from darkroom.data.dataset import reopen
    from darkroom.evaluation.evaluate import evaluate as evaluate_split

    dataset = reopen(run, data_config)
    with _held(run):
        return evaluate_split(run, dataset, split=split)


def export(run: Run, *, data_config: DataConfig) -> Path:
    """Write the bundle of a run; evaluates validation first where that has not been done."""
    from darkroom.data.dataset import reopen
    from darkroom.evaluation.evaluate import evaluate as evaluate_split
    from darkroom.export.onnx_bundle import export_bundle

    dataset = reopen(run, data_config)
    with _held(run):
        if not run.metrics.exists():
            evaluate_split(run, dataset)
        return export_bundle(run, dataset).folder


def run_all(
    data: str,
    run: Run,
    *,
    data_config: DataConfig,
    config: TrainConfig,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Train, evaluate on validation, open the test split once, and export.

    The test split is opened when nothing is left to choose. The bundle comes after it, so that its answers can be
    proved equal on the test pictures too, and it can carry the test result to those who use it.
    """
    seconds: dict[str, float] = {}
    with _timed(seconds, "data and training"):
        train(data, run, data_config=data_config, config=config, resume=resume, overwrite=overwrite)
    with _timed(seconds, "evaluation"):
        evaluate(run, split="validation", data_config=data_config)
        if "test" not in run.read_metrics():
            evaluate(run, split="test", data_config=data_config)
    with _timed(seconds, "export"):
        export(run, data_config=data_config)
    run.add_seconds(seconds)


def bundle_of(path: Path) -> Path:
    """The bundle folder that `path` is, or that the run at `path` holds."""
    if (path / "bundle.json").is_file():
        return path
    run = Run(path)
    if (run.bundle / "bundle.json").is_file():
        return run.bundle
    if run.config.is_file():
        raise BundleError(f"the run {path} has no bundle yet: make it with `darkroom export {path}`")
    raise BundleError(f"{path} is neither a run nor a bundle: give a folder that `darkroom run` or `export` made")


def free_run(data: str) -> Run:
    """A run folder named after the data that is not taken yet: runs/digits, runs/digits-2, …"""
    from darkroom.data.sources import ARCHIVE_SUFFIXES

    name = Path(data).name
    endings = [ending for ending in (*ARCHIVE_SUFFIXES, ".csv") if name.lower().endswith(ending)]
    name = re.sub(r"[^\w.-]+", "-", name[: len(name) - max(map(len, endings), default=0)]).strip("-.") or "run"
    number = 1
    while Run(folder := RUNS / (name if number == 1 else f"{name}-{number}")).holds():
        number += 1
    return Run(folder)


@contextmanager
def _held(run: Run) -> Iterator[None]:
    """Keep other processes from changing the run; raises `RunError` while one of them does."""
    from darkroom.data.storage import locked

    made = [folder for folder in (run.folder, *run.folder.parents) if not folder.exists()]
    try:
        with locked(run.lock, wait=False):
            try:
                yield
            finally:
                with suppress(OSError):  # some systems do not delete what is open
                    run.lock.unlink()
    except BlockingIOError as error:
        raise RunError(f"another darkroom is at work on {run.folder}: wait for it, or give another --out") from error
    finally:
        with suppress(OSError):  # what failed before it began leaves no trace; a folder that holds anything stays
            for folder in made:
                folder.rmdir()


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
