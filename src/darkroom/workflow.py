"""What each command does, as one function, for the command line and for programs; `run_all` chains them.

Whatever imports torch or draws is imported inside the functions, so that the command line answers at once and a server
needs neither.
"""

import difflib
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.comparison.folder import Ablation, Comparison, Study
from darkroom.config import DataConfig, ExportConfig, ServeConfig, TrainConfig
from darkroom.errors import BundleError, RunError, UsageError
from darkroom.progress import say, track
from darkroom.runs import Run
from darkroom.shipped import samples_to_try, shipped
from darkroom.training import launch

if TYPE_CHECKING:
    from darkroom.data.dataset import DataSet
    from darkroom.data.doctor import Report
    from darkroom.engines.prediction import Failure, Prediction
    from darkroom.training.distributed import Team

RUNS = Path("runs")
OF_REPORTS = ("jinja2", "typst", "pptx")
"""Modules that reports need, beside what training does."""

DATA = DataConfig()
TRAINING = TrainConfig()
EXPORTING = ExportConfig()
SERVING = ServeConfig()


def examine(data: str, config: DataConfig = DATA) -> "Report":
    """What the doctor finds in a data set; nothing of the user's is written.

        for line in darkroom.examine("photos/").lines():
            print(line)

    Raises:
        DataError: it does not exist, or is not laid out as a data set.
    """
    from darkroom.data.dataset import inspect_source
    from darkroom.data.doctor import examine as examine_source
    from darkroom.data.manifest import build_manifest
    from darkroom.errors import DataError

    launch.refuse_several("doctor")
    source, inspections = inspect_source(data, config)
    try:
        manifest = build_manifest(source, inspections, config)
    except DataError as error:
        say(f"cannot be split as it is: {error}")
        manifest = None
    return examine_source(source, inspections, manifest, config)


def load_data(data: str, config: DataConfig = DATA) -> "DataSet":
    """A data set that is split and decoded, as a network from scratch sees it; nothing of the user's is written.

        dataset = darkroom.load_data("digits")
        dataset.pixels  # (N, H, W, 3) uint8, row i for row i of the manifest
        dataset.manifest.indices("train")  # which of them are trained on

    Raises:
        DataError: it cannot be read or split.
    """
    from darkroom.data.dataset import prepare

    return prepare(data, config)


def train(
    data: str,
    run: Run,
    *,
    data_config: DataConfig = DATA,
    config: TrainConfig = TRAINING,
    resume: bool = False,
    overwrite: bool = False,
    dataset: "DataSet | None" = None,
) -> Run:
    """Prepare a data set and train a network on it, or go on with a training that was interrupted; returns the run.

    Who has prepared the `dataset` already, as this network wants it, gives it. Where torchrun started several
    processes, each calls this: one prepares and writes, all train.

        run = darkroom.train("photos/", darkroom.Run("runs/a"), config=darkroom.TrainConfig(minutes=10))

    Raises:
        DataError: the data set cannot be read or split.
        ModelError: the network is unknown, or its weights are not at hand.
        RunError: the folder holds a run, and neither `resume` nor `overwrite` is given.
        TrainingError: the loss is not finite.
        TrainingStoppedError: the user stopped it; `resume` goes on from there.
    """
    leads = launch.place().leads
    if leads:
        claim(run, resume=resume, overwrite=overwrite)
    with held(run) if leads else nullcontext():
        _train(data, run, data_config, config, resume=resume, overwrite=overwrite, dataset=dataset)
    return run


def _train(
    data: str,
    run: Run,
    data_config: DataConfig,
    config: TrainConfig,
    *,
    resume: bool,
    overwrite: bool,
    dataset: "DataSet | None",
) -> None:
    from darkroom.data.dataset import reopen
    from darkroom.evaluation.evaluate import evaluate as evaluate_split
    from darkroom.training.distributed import joined
    from darkroom.training.refit import refit
    from darkroom.training.train import carry_on

    with joined() as team:
        begun = None
        if team.leads:
            begun = _begun(data, run, data_config, config, team, resume=resume, overwrite=overwrite, dataset=dataset)
        with team.handed_out(run, goes_on=begun is not None) as shared:
            if shared is not None:
                dataset = team.in_turn(lambda: begun or reopen(shared, data_config))
                carry_on(dataset, shared, team)  # which has nothing to do where a refit is resumed
                if shared.read_config()["training"]["requested"].get("refit", False):
                    if team.leads and not run.metrics.exists():
                        evaluate_split(run, dataset)
                    refit(dataset, shared, team)


def _begun(
    data: str,
    run: Run,
    data_config: DataConfig,
    config: TrainConfig,
    team: "Team",
    *,
    resume: bool,
    overwrite: bool,
    dataset: "DataSet | None",
) -> "DataSet | None":
    """The data set of a run that is ready to be trained further; None if it is trained already."""
    from darkroom.data.dataset import prepare, reopen
    from darkroom.training.candidates import candidate
    from darkroom.training.illustrate import illustrate
    from darkroom.training.settle import settle
    from darkroom.training.train import begin, require_same

    if resume and run.config.exists():
        require_same(run, data, data_config=data_config, config=config)
        if run.finished:
            say(f"{run.folder} is trained already")
            return None
        dataset = reopen(run, data_config)
    else:
        if resume:
            say(f"{run.folder} holds nothing to resume: starting anew")
        if dataset is None:
            entrant = candidate(config.model, random_weights=config.random_weights)
            dataset = prepare(data, data_config, entrant.preprocessing)
        content = settle(dataset, data_config=data_config, config=config, team=team)
        if overwrite:  # only now: what cannot be trained must not cost the run that was there
            run.clear()
        begin(dataset, run, content)
    illustrate(run, dataset)
    return dataset


def claim(place: Run | Study, *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that is taken, unless the user says that what it holds is to be resumed or replaced."""
    folder, kind = place.folder, place.kind
    if resume and overwrite:
        raise UsageError("--resume and --overwrite contradict each other: give one of them")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file: give a folder")
    if place.holds() and not place.begun:
        raise UsageError(f"{folder} holds no {kind}, but files that one would replace: give another --out")
    if place.holds() and not (resume or overwrite):
        article = "an" if kind[0] in "aeiou" else "a"
        raise RunError(f"{folder} already holds {article} {kind}: --resume it, --overwrite it, or give another --out")


def evaluate(
    run: Run, *, split: str = "validation", data_config: DataConfig = DATA, dataset: "DataSet | None" = None
) -> dict[str, Any]:
    """Measure a trained run on a split, and return the content of metrics.json; each opening of test is counted.

        darkroom.evaluate(run)["validation"]["accuracy"]  # value, low and high of the 95 % interval, method

    `dataset` as in `train`.

    Raises:
        RunError: the run is not trained, or its data have changed.
    """
    from darkroom.data.dataset import reopen
    from darkroom.evaluation.evaluate import evaluate as evaluate_split

    launch.refuse_several("evaluate")
    dataset = dataset or reopen(run, data_config)
    _require_finished(run)
    _use_threads(run)
    with held(run):
        return evaluate_split(run, dataset, split=split)


def export(
    run: Run,
    *,
    data_config: DataConfig = DATA,
    config: ExportConfig = EXPORTING,
    dataset: "DataSet | None" = None,
) -> Path:
    """Write a bundle or a SavedModel of a run and return its folder; evaluates validation first where it was not yet.

        darkroom.Bundle.open(darkroom.export_bundle(run)).info.parity

    `dataset` as in `train`.

    Raises:
        ExportError: graph and network disagree, or int8 loses more accuracy than was allowed.
        RunError: the run is not trained, or its data have changed.
    """
    from darkroom.data.dataset import reopen
    from darkroom.evaluation.evaluate import evaluate as evaluate_split

    launch.refuse_several("export")
    if config.format == "saved-model" and find_spec("tensorflow") is None:  # said before anything is read
        raise ModuleNotFoundError("TensorFlow is missing", name="tensorflow")
    dataset = dataset or reopen(run, data_config)
    _require_finished(run)
    _use_threads(run)
    with held(run):
        if not run.metrics.exists():
            evaluate_split(run, dataset)
        return _exported(run, dataset, config)


def _exported(run: Run, dataset: "DataSet", config: ExportConfig) -> Path:
    if config.format == "saved-model":
        from darkroom.export.saved_model import export_saved_model

        return export_saved_model(run, dataset)
    if config.int8:
        from darkroom.export.int8_bundle import export_int8

        return export_int8(run, dataset, bound=config.int8_bound).folder
    from darkroom.export.onnx_bundle import export_bundle

    return export_bundle(run, dataset).folder


def _use_threads(run: Run) -> None:
    """Those that its training was granted, not those that it found fastest: the last digits of sums depend on them."""
    from darkroom.training.machine import use_threads

    use_threads(run.read_config()["training"]["requested"]["threads"])


def _require_finished(run: Run) -> None:
    if run.trained and not run.finished:
        raise RunError(f"the refit of {run.folder} has not ended: go on with `darkroom train … --resume`")


def share(run: str | Path, folder: Path, *, licence: str | None = None) -> Path:
    """Write a run's bundle into `folder` without any picture of the data, for other people.

        darkroom.share_bundle("runs/digits", Path("for-others"), licence="mit")

    Raises:
        BundleError: the run was trained or evaluated again after its bundle was made.
        UsageError: `licence` is no identifier.
    """
    from darkroom.export.share import share_bundle

    return share_bundle(bundle_of(run), folder, licence=licence).folder


def run_all(
    data: str,
    run: Run,
    *,
    data_config: DataConfig = DATA,
    config: TrainConfig = TRAINING,
    resume: bool = False,
    overwrite: bool = False,
) -> Run:
    """Train, evaluate on validation, open the test split once, export, and report; returns the run.

    The test split is opened when nothing is left to choose. The bundle comes after it, so that its answers can be
    proved equal on the test pictures too, and it can carry the test result to those who use it. Where the extra
    `darkroom[report]` is not installed, a line says how to get the report.

        run = darkroom.run_all("digits", darkroom.Run("runs/digits"))
        print(run.read_metrics()["test"]["accuracy"]["value"])

    Raises what `train`, `evaluate`, `export` and `write_report` do.
    """
    launch.refuse_several("run")
    seconds: dict[str, float] = {}
    with _timed(seconds, "data and training"):
        train(data, run, data_config=data_config, config=config, resume=resume, overwrite=overwrite)
    with _timed(seconds, "evaluation"):
        if not run.refitted:  # what was measured before the refit stays
            evaluate(run, split="validation", data_config=data_config)
        if "test" not in run.read_metrics():
            evaluate(run, split="test", data_config=data_config)
    with _timed(seconds, "export"):
        export(run, data_config=data_config)
    run.add_seconds(seconds)
    _report(run)
    return run


def _report(run: Run) -> None:
    """Report a run, where everything that this takes is installed."""
    if missing := [name for name in OF_REPORTS if find_spec(name) is None]:
        say(
            f"No report, since {missing[0]} is not installed: `pip install 'darkroom[report]'`, then "
            f"`darkroom report {run.folder}`"
        )
        return
    from darkroom.report.write import write_report

    say("Writing report.pdf and slides.pptx")
    write_report(run.folder)


def predict(model: str | Path, *pictures: str | Path) -> "list[Prediction | Failure]":
    """Answers for files, folders and patterns, each picture once; one that cannot be read gets a `Failure` of its own.

    `model` is the folder of a run, comparison or bundle, or the name of a model that comes with darkroom.

        for answer in darkroom.predict("cifar10", "photo.jpg", "more/*.png"):
            print(answer)

    Raises:
        BundleError: there is no bundle, or it was changed.
        EngineError: the engine answers otherwise than the exported network did.
        UsageError: a file, folder or pattern names nothing.
    """
    from darkroom.engines.onnx_runtime import OnnxRuntimeEngine
    from darkroom.engines.prediction import expand, stream_predictions

    if not pictures:
        raise UsageError("no pictures are named: give files, folders or patterns after the model")
    paths = expand([str(picture) for picture in pictures])
    with OnnxRuntimeEngine.open(bundle_of(model)) as engine:
        sources = ((str(path), path) for path in paths)
        return list(track(stream_predictions(engine, sources), total=len(paths), what="Predicting"))


def serve(model: str | Path, settings: ServeConfig = SERVING) -> None:
    """Serve a model, named as in `predict`, to browsers and programs until Ctrl-C or SIGTERM.

        darkroom.serve("runs/digits", darkroom.ServeConfig(port=9000))

    Raises:
        BundleError: there is no bundle, or it was changed.
        EngineError: the engine answers otherwise than the exported network did.
        UsageError: the address cannot be listened on.
    """
    from darkroom.engines.choice import open_engine
    from darkroom.web import create_app
    from darkroom.web.papers import Papers
    from darkroom.web.server import serve as listen

    bundle = bundle_of(model)
    samples = settings.samples or samples_of(model, bundle)
    with open_engine(bundle, settings) as engine:
        listen(create_app(engine, settings, Papers.of(bundle, samples)), settings)


def bundle_of(model: str | Path) -> Path:
    """The bundle that `model` is: its folder, that of a run or comparison, or the name of one shipped with darkroom.

    What lies at that path comes first, but a folder that is neither run nor bundle hides no shipped model.
    """
    path, name, known = Path(model), str(model), shipped()
    found = _bundle_at(path)
    if found is not None:
        if name in known and found.resolve() != known[name]:
            say(f"taking {found}, not the model {name} that comes with darkroom")
        return found
    if name in known:
        if path.exists():
            say(f"taking the model {name} that comes with darkroom: what lies here by this name is no model")
        return known[name]
    raise BundleError(
        f"{model} is neither a run nor a bundle, nor a model that comes with darkroom "
        f"({', '.join(known) or 'none does'}): {_near_models(path, known)}make one with `darkroom run DATA`"
    )


def samples_of(model: str | Path, bundle: Path) -> Path | None:
    """The pictures to try of a run, or of a bundle that comes with darkroom; others may be meant for strangers."""
    run = Run(Path(model))
    if run.begun and run.samples.is_dir():
        return run.samples
    return samples_to_try(bundle)


def _bundle_at(path: Path) -> Path | None:
    """The bundle at `path`: itself, a run's, or that of a comparison's choice.

    Raises:
        BundleError: the run has none yet.
        RunError: the comparison has chosen none yet.
    """
    if (path / "bundle.json").is_file():
        return path
    compared = Comparison(path)
    run = compared.chosen if compared.begun else Run(path)
    if (run.bundle / "bundle.json").is_file():
        return run.bundle
    try:
        run.read_config()
    except RunError:
        return None
    raise BundleError(f"the run {run.folder} has no bundle yet: make it with `darkroom export {run.folder}`")


def _near_models(path: Path, known: Iterable[str]) -> str:
    """What may have been meant: a shipped model, or one that lies beside or in runs/."""
    folders = [entry for place in (RUNS, path.parent) if place.is_dir() for entry in place.iterdir() if entry.is_dir()]
    candidates = {entry.name: str(entry) for entry in folders if Run(entry).begun or (entry / "bundle.json").is_file()}
    candidates |= {name: name for name in known}
    close = difflib.get_close_matches(path.name, candidates, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(candidates[name] for name in close)}? Or " if close else ""


def name_of(data: str) -> str:
    """What files and folders that come of a data set are called: pets for /data/pets.zip."""
    from darkroom.data.sources import ARCHIVE_SUFFIXES

    name = Path(data).name
    endings = [ending for ending in (*ARCHIVE_SUFFIXES, ".csv") if name.lower().endswith(ending)]
    return re.sub(r"[^\w.-]+", "-", name[: len(name) - max(map(len, endings), default=0)]).strip("-.") or "run"


def free_run(data: str) -> Run:
    """A run folder named after the data that is not taken yet: runs/digits, runs/digits-2, …"""
    return Run(free_folder(data))


def free_folder(data: str, ending: str = "") -> Path:
    """A folder named after the data, and `ending`, that is not taken yet: runs/digits-compared, …"""
    name = name_of(data)
    number, folder = 1, RUNS / f"{name}{ending}"
    while Run(folder).holds() or Comparison(folder).holds() or Ablation(folder).holds():
        number += 1
        folder = RUNS / f"{name}{ending}-{number}"
    return folder


@contextmanager
def held(place: Run | Study) -> Iterator[None]:
    """Keep other processes from changing a run or a study; raises `RunError` while one of them does."""
    from darkroom.data.storage import locked

    made = [folder for folder in (place.folder, *place.folder.parents) if not folder.exists()]
    try:
        with locked(place.lock, wait=False):
            try:
                yield
            finally:
                with suppress(OSError):  # some systems do not delete what is open
                    place.lock.unlink()
    except BlockingIOError as error:
        raise RunError(f"another darkroom is at work on {place.folder}: wait for it, or give another --out") from error
    finally:
        with suppress(OSError):  # what failed before it began leaves no trace; a folder that holds anything stays
            for folder in made:
                folder.rmdir()


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
