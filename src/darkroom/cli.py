"""The command line: parse, call one function, print."""

import io
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import cyclopts
from cyclopts import Parameter
from cyclopts.config import Dict

from darkroom import __version__, workflow
from darkroom.comparison.folder import Ablation, Comparison
from darkroom.config import DataConfig
from darkroom.console import (
    ABLATING,
    COMPARING,
    DATA,
    EXPORTING,
    SERVING,
    STORAGE,
    TRAINING,
    Ablating,
    AsJson,
    Comparing,
    Data,
    Exporting,
    Flag,
    Serving,
    Storage,
    Training,
    command,
    mistakes_told,
    program,
    read_toml,
    resumable,
    storage_options,
)
from darkroom.errors import ImageError, ReportError, UsageError
from darkroom.progress import say, track
from darkroom.runs import Run

if TYPE_CHECKING:
    from darkroom.engines.prediction import Answer

app = cyclopts.App(
    name="darkroom",
    help="Develop labelled pictures into an image classifier that can be trusted, explained and served.\n\n"
    "DATA is `digits`, `cifar10`, `animals10`, a folder of class folders, an archive of one, or a .csv of path,label.",
    version=__version__,
    version_flags=["--version"],
)

app.suppress_keyboard_interrupt = app.meta.suppress_keyboard_interrupt = False  # `mistakes_told` tells of it


@app.command
def doctor(data: str, /, *, as_json: AsJson = False, data_config: Data = DATA) -> None:
    """Examine a data set without changing it: unreadable files, copies, leaks between splits, imbalance, oddities.

    Parameters
    ----------
    data
        The data set.
    as_json
        Print JSON instead of text.
    """
    report = workflow.examine(data, data_config)
    print(json.dumps(report.to_json(), indent=2, ensure_ascii=False) if as_json else "\n".join(report.lines()))


@app.command
def train(
    data: str,
    /,
    *,
    out: Path | None = None,
    resume: Flag = False,
    overwrite: Flag = False,
    data_config: Data = DATA,
    training: Training = TRAINING,
) -> None:
    """Train a network from scratch; validation chooses its best epoch.

    Parameters
    ----------
    data
        The data set.
    out
        Run folder; runs/NAME when not given.
    resume
        Go on with an interrupted training, to the same weights as if it had never stopped.
    overwrite
        Delete the run that is in the folder.
    """
    run = _run_folder(data, out, resume=resume)
    with resumable("train", data, run, data_config):
        workflow.train(data, run, data_config=data_config, config=training, resume=resume, overwrite=overwrite)
    # After a refit validation has been learned. Of several processes, only the leader has the folder, and prints.
    split = ("--split", "test") if run.begun and run.refitted else ()
    command = [program(), "evaluate", str(run.folder), *split, *storage_options(data_config)]
    print(f"{run.folder}\nevaluate it: {shlex.join(command)}")


@app.command
def evaluate(run: Path, /, *, split: Literal["validation", "test"] = "validation", storage: Storage = STORAGE) -> None:
    """Measure a trained run: metrics with 95 % intervals, calibration, figures.

    Parameters
    ----------
    run
        The run folder.
    split
        The pictures to measure on. Each opening of test is counted and reported.
    """
    from darkroom.summary import class_lines, metric_lines

    metrics = workflow.evaluate(Run(run), split=split, data_config=DataConfig(**asdict(storage)))
    block = metrics[split]
    print(f"{split}: {block['n']:,} pictures")
    print("\n".join(metric_lines(block)), end="\n\n")
    print("\n".join(class_lines(block)))
    if split == "test":
        print(f"\nThe test split has been opened {metrics['test_openings']} time(s).")


@app.command
def export(run: Path, /, *, storage: Storage = STORAGE, settings: Exporting = EXPORTING) -> None:
    """Write the bundle of a run: ONNX graph, preprocessing, class names, golden pictures; parity is proved.

    Or a SavedModel for TensorFlow Serving: --format saved-model.

    Parameters
    ----------
    run
        The run folder.
    """
    from darkroom.bundle import BundleInfo
    from darkroom.summary import int8_lines

    folder = workflow.export(Run(run), data_config=DataConfig(**asdict(storage)), config=settings)
    print(folder)
    if settings.int8:
        print("\n".join(int8_lines(BundleInfo.read(folder / "bundle.json"))))


@app.command
def share(
    run: Path,
    folder: Path,
    /,
    *,
    licence: Annotated[str | None, Parameter(name=["--licence", "--license"])] = None,
) -> None:
    """Copy the bundle of a run for others: its golden pictures are drawn ones, so that none of yours goes along.

    Parameters
    ----------
    run
        The run folder, or a bundle in it such as RUN/bundle-int8.
    folder
        Folder for the bundle; an older bundle in it is replaced.
    licence
        Identifier of the licence of the weights for the model card, such as mit or cc-by-4.0.
    """
    print(workflow.share(run, folder, licence=licence))


@app.command
def models() -> None:
    """List the trained models that come with darkroom, which predict and serve know by name."""
    from darkroom.shipped import shipped
    from darkroom.summary import shipped_lines

    print("\n".join(shipped_lines(shipped())) or "no model comes with this darkroom")


@app.command
def predict(
    model: str,
    /,
    *images: str,
    as_json: AsJson = False,
    top: int = 3,
) -> None:
    """Classify pictures: files, folders or globs. A broken one gets an error of its own.

    Parameters
    ----------
    model
        A run folder, a bundle, or the name of a model that comes with darkroom (`darkroom models` lists them).
    images
        Pictures, folders of pictures, or patterns such as 'photos/*.jpg'.
    as_json
        Print JSON with all classes instead of a table.
    top
        Classes shown for each picture in the table.
    """
    _require_pictures(images, top)
    _print_answers(workflow.predict(model, *images), as_json=as_json, top=top)


@app.command
def serve(model: str, /, *, print_systemd_unit: Flag = False, settings: Serving = SERVING) -> None:
    """Serve a model to browsers and programs.

    Parameters
    ----------
    model
        A run folder, a bundle, or the name of a model that comes with darkroom (`darkroom models` lists them).
    print_systemd_unit
        Print a unit with which systemd runs this very server, and serve nothing.
    """
    bundle = workflow.bundle_of(model)
    samples = settings.samples or workflow.samples_of(model, bundle)
    if print_systemd_unit:
        from darkroom.web.systemd import unit

        print(unit(command(), bundle, replace(settings, samples=samples)), end="")
        return
    workflow.serve(model, settings)


@app.command
def client(
    url: str,
    /,
    *images: str,
    as_json: AsJson = False,
    top: int = 3,
    api_key: Annotated[str | None, Parameter(env_var="DARKROOM_API_KEY")] = None,
) -> None:
    """Have a server classify pictures: as `predict`, with the address of `darkroom serve` in place of a model.

    Parameters
    ----------
    url
        The server's address, such as http://127.0.0.1:8000.
    images
        Pictures, folders of pictures, or patterns such as 'photos/*.jpg'.
    as_json
        Print JSON with all classes instead of a table.
    top
        Classes shown for each picture in the table.
    api_key
        The key that the server asks for, if it asks for one; better given in the environment than typed.
    """
    from darkroom.client import Client
    from darkroom.engines.prediction import expand

    _require_pictures(images, top, after="address")
    paths = expand(images)
    found = Client(url, key=api_key).predict(paths, top=None if as_json else top)
    _print_answers(list(track(found, total=len(paths), what="Asking the server")), as_json=as_json, top=top)


@app.command
def key(file: Path, name: str, /) -> None:
    """Make an API key for `darkroom serve --api-keys FILE`: it is printed once, and only its hash is kept.

    Parameters
    ----------
    file
        The file of hashes, to which a line is added.
    name
        Whose key it is; the server's log names it.
    """
    from darkroom.web.keys import add_key

    print(add_key(file, name))
    say(f"its hash is in {file}: a server that runs needs to be started again to know it")


@app.command
def run(
    data: str = "digits",
    /,
    *,
    out: Path | None = None,
    resume: Flag = False,
    overwrite: Flag = False,
    data_config: Data = DATA,
    training: Training = TRAINING,
) -> None:
    """Do it all: train, evaluate, open the test split once, export a bundle ready to serve, and write the report.

    Parameters
    ----------
    data
        The data set.
    out
        Run folder; runs/NAME when not given.
    resume
        Go on with an interrupted run.
    overwrite
        Delete the run that is in the folder.
    """
    from darkroom.summary import run_lines

    folder = _run_folder(data, out, resume=resume)
    with resumable("run", data, folder, data_config):
        workflow.run_all(data, folder, data_config=data_config, config=training, resume=resume, overwrite=overwrite)
    print("\n" + "\n".join(run_lines(folder, program=program())))


@app.command
def compare(
    data: str,
    /,
    *,
    out: Path | None = None,
    resume: Flag = False,
    overwrite: Flag = False,
    data_config: Data = DATA,
    comparison: Comparing = COMPARING,
) -> None:
    """Train several networks in one budget, and choose one of them for stated reasons.

    Parameters
    ----------
    data
        The data set.
    out
        Folder of the comparison; runs/NAME-compared when not given.
    resume
        Go on with an interrupted comparison: what has ended stays.
    overwrite
        Delete the comparison that is in the folder.
    """
    from darkroom.compare import compare as compare_networks

    if out is None and resume:
        raise UsageError("--resume needs --out: name the folder that is to go on")
    folder = out or workflow.free_folder(data, "-compared")
    with resumable("compare", data, Comparison(folder), data_config):
        compare_networks(data, folder, data_config=data_config, config=comparison, resume=resume, overwrite=overwrite)
    print("\n" + Comparison(folder).text.read_text(encoding="utf-8"))
    print(f"{folder}\nserve the choice: {program()} serve {shlex.quote(str(folder))}")


@app.command
def ablate(
    data: str,
    /,
    *,
    out: Path | None = None,
    resume: Flag = False,
    overwrite: Flag = False,
    data_config: Data = DATA,
    training: Training = TRAINING,
    ablation: Ablating = ABLATING,
) -> None:
    """Vary one thing at a time in trainings of equal budget, over several seeds, and tell what each is worth.

    Parameters
    ----------
    data
        The data set.
    out
        Folder of the ablation; runs/NAME-ablated when not given.
    resume
        Go on with an interrupted ablation: trainings that have ended stay.
    overwrite
        Delete the ablation that is in the folder.
    """
    from darkroom.ablate import ablate as ablate_training
    from darkroom.ablate import lines

    if out is None and resume:
        raise UsageError("--resume needs --out: name the folder that is to go on")
    folder = out or workflow.free_folder(data, "-ablated")
    with resumable("ablate", data, Ablation(folder), data_config):
        content = ablate_training(
            data,
            folder,
            data_config=data_config,
            training=training,
            config=ablation,
            resume=resume,
            overwrite=overwrite,
        )
    print("\n" + "\n".join(lines(content)))
    print(folder)


@app.command
def report(folder: Path, /, *, ablation: Path | None = None) -> None:
    """Write report.pdf, slides.pptx, and report.json, which says where each of their numbers comes from.

    Parameters
    ----------
    folder
        A run folder, or the folder of a comparison, whose choice is then reported.
    ablation
        The folder of an ablation, which becomes a section of its own.
    """
    from darkroom.report.write import write_report

    place = write_report(folder, ablation=ablation)
    print(f"{place.report}\n{place.slides}\ncheck every number: {shlex.join([program(), 'verify', str(folder)])}")


@app.command
def verify(
    folder: Path,
    /,
    *,
    sample: int | None = None,
    server: str | None = None,
    storage: Storage = STORAGE,
) -> None:
    """Compute everything that a run or comparison claims again from what lies beneath it; nothing is changed.

    Parameters
    ----------
    folder
        A run folder, or that of a comparison.
    sample
        Pictures of a split that are read and answered again; all, when not given.
    server
        Address of a server that is said to serve this model.
    """
    from darkroom.verify import verify as verify_run

    if sample is not None and sample < 1:
        raise UsageError(f"--sample is {sample}: give at least 1")
    failed = 0
    for check in verify_run(folder, DataConfig(**asdict(storage)), sample=sample, server=server):
        print(f"{'ok    ' if check.passed else 'FAILED'}  {check.name}: {check.detail}", flush=True)
        failed += not check.passed
    if failed:
        raise ReportError(f"{failed} of the checks of {folder} failed: what they name was changed after it was made")


@app.command
def notebook(
    data: str,
    /,
    *,
    out: Path | None = None,
    overwrite: Flag = False,
    storage: Storage = STORAGE,
) -> None:
    """Write a Jupyter notebook that takes every step on a data set, one cell at a time, and explains it.

    Parameters
    ----------
    data
        The data set.
    out
        The notebook; NAME-walkthrough.ipynb when not given.
    overwrite
        Replace the file that is there.
    """
    from darkroom.notebook import write_notebook

    path = write_notebook(data, out, storage=storage, overwrite=overwrite)
    print(f"{path}\nopen it: {shlex.join(['jupyter', 'lab', str(path)])}")


weights = cyclopts.App(name="weights", help="Weights of pre-trained networks.")
app.command(weights)


@weights.command
def fetch(name: str, /, *, to: Path) -> None:
    """Fetch the weights of a network into a folder, to bring them to a machine without a network.

    Parameters
    ----------
    name
        A network that timm knows, such as resnet50.
    to
        A new folder; give it as `local-dir:FOLDER`.
    """
    from darkroom.models import backbones

    backbones.save(backbones.find(name), to)
    print(f"{to}\nuse it: --model {backbones.LOCAL}{to}")


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config: Annotated[Path | None, Parameter(name="--config")] = None,
) -> None:
    """Read options from a TOML file first: a table for each command, with the option names, as in `[train]`.

    Parameters
    ----------
    config
        A TOML file with a table for each command; options on the command line come before it.
    """
    commands = [name for name in app if not name.startswith("-")]
    tables = read_toml(config, commands) if config is not None else None
    app.config = (Dict(tables, source=str(config)),) if tables is not None else ()
    app(tokens)


def _require_pictures(images: Sequence[str], top: int, *, after: str = "model") -> None:
    if not images:
        raise UsageError(f"no pictures are named: give files, folders or patterns after the {after}")
    if top < 1:
        raise UsageError(f"--top is {top}: give at least 1")


def _print_answers(answers: "Sequence[Answer]", *, as_json: bool, top: int) -> None:
    """Answers as a table or as JSON; raises `ImageError` where no picture got one."""
    from darkroom.engines.prediction import Failure
    from darkroom.summary import prediction_json, prediction_lines

    if as_json:
        print(json.dumps([prediction_json(answer) for answer in answers], indent=2, ensure_ascii=False))
    else:
        print("\n".join(prediction_lines(answers, top=top)))
    if all(isinstance(answer, Failure) for answer in answers):
        raise ImageError("none of the pictures could be read: see the errors above")


def _run_folder(data: str, out: Path | None, *, resume: bool) -> Run:
    if out is None and resume:
        raise UsageError("--resume needs --out: name the run folder that is to go on")
    return Run(out) if out is not None else workflow.free_run(data)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, by default that of this process; errors of the user's become one line and exit code 2."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may hold what a terminal cannot show
    with mistakes_told():
        app.meta(sys.argv[1:] if arguments is None else arguments, print_error=False, exit_on_error=False)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
