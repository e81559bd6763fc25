"""The command line: parse, call one function, print. The only place that exits."""

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import cyclopts
from cyclopts import Parameter
from cyclopts.config import Toml

from darkroom import __version__, workflow
from darkroom.config import DataConfig, ServeConfig, TrainConfig
from darkroom.errors import DarkroomError, TrainingStoppedError, UsageError
from darkroom.progress import say
from darkroom.runs import Run

EXIT_ERROR = 2
EXIT_STOPPED = 130
"""What shells report for Ctrl-C."""

app = cyclopts.App(
    name="darkroom",
    help="Develop labelled pictures into an image classifier that can be trusted, explained and served.\n\n"
    "DATA is `digits`, `cifar10`, `animals10`, a folder of class folders, an archive of one, or a .csv of path,label.",
    version=__version__,
    version_flags=["--version"],
)

Data = Annotated[DataConfig, Parameter(name="*")]
Training = Annotated[TrainConfig, Parameter(name="*")]
Flag = Annotated[bool, Parameter(negative="")]
AsJson = Annotated[bool, Parameter(name="--json", negative="")]
Serving = Annotated[ServeConfig, Parameter(name="*")]

DATA = DataConfig()
TRAINING = TrainConfig()
SERVING = ServeConfig()


@app.command
def doctor(
    data: str, /, *, as_json: Annotated[bool, Parameter(name="--json", negative="")] = False, data_config: Data = DATA
) -> None:
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
    with _resumable("train", data, run):
        workflow.train(data, run, data_config=data_config, config=training, resume=resume, overwrite=overwrite)
    print(f"{run.folder}\nevaluate it: darkroom evaluate {run.folder}")


@app.command
def evaluate(run: Path, /, *, split: Literal["validation", "test"] = "validation", data_config: Data = DATA) -> None:
    """Measure a trained run: metrics with 95 % intervals, calibration, figures.

    Parameters
    ----------
    run
        The run folder.
    split
        The pictures to measure on. Each opening of test is counted and reported.
    """
    from darkroom.summary import class_lines, metric_lines

    metrics = workflow.evaluate(Run(run), split=split, data_config=data_config)
    block = metrics[split]
    print(f"{split}: {block['n']:,} pictures")
    print("\n".join(metric_lines(block)), end="\n\n")
    print("\n".join(class_lines(block)))
    if split == "test":
        print(f"\nThe test split has been opened {metrics['test_openings']} time(s).")


@app.command
def export(run: Path, /, *, data_config: Data = DATA) -> None:
    """Write the bundle of a run: ONNX graph, preprocessing, class names, golden pictures; parity is proved.

    Parameters
    ----------
    run
        The run folder.
    """
    print(workflow.export(Run(run), data_config=data_config))


@app.command
def predict(
    model: Path,
    /,
    *images: str,
    as_json: AsJson = False,
    top: int = 3,
) -> None:
    """Classify pictures: files, folders or globs. A broken one gets an error of its own.

    Parameters
    ----------
    model
        A run folder or a bundle.
    images
        Pictures, folders of pictures, or patterns such as 'photos/*.jpg'.
    as_json
        Print JSON with all classes instead of a table.
    top
        Classes shown for each picture in the table.
    """
    from darkroom.engines.onnx_runtime import OnnxRuntimeEngine
    from darkroom.engines.prediction import expand, predict_pictures
    from darkroom.summary import prediction_json, prediction_lines

    if not images:
        raise UsageError("no pictures are named: give files, folders or patterns after the model")
    paths = expand(images)
    with OnnxRuntimeEngine.open(workflow.bundle_of(model)) as engine:
        answers = predict_pictures(engine, [(str(path), path) for path in paths])
    if as_json:
        print(json.dumps([prediction_json(answer) for answer in answers], indent=2, ensure_ascii=False))
    else:
        print("\n".join(prediction_lines(answers, top=top)))


@app.command
def serve(model: Path, /, *, settings: Serving = SERVING) -> None:
    """Serve a model to browsers and programs.

    Parameters
    ----------
    model
        A run folder or a bundle.
    """
    from darkroom.engines.onnx_runtime import OnnxRuntimeEngine
    from darkroom.web import create_app
    from darkroom.web.server import serve as listen

    with OnnxRuntimeEngine.open(workflow.bundle_of(model)) as engine:
        listen(create_app(engine, settings), settings)


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
    """Do it all: train, evaluate, open the test split once, export a bundle ready to serve.

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
    with _resumable("run", data, folder):
        seconds = workflow.run_all(
            data, folder, data_config=data_config, config=training, resume=resume, overwrite=overwrite
        )
    print("\n" + "\n".join(run_lines(folder, seconds)))


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
    if config is not None:
        if not config.is_file():
            raise UsageError(f"--config {config} does not exist: give a TOML file")
        app.config = (Toml(config),)
    app(tokens)


def _run_folder(data: str, out: Path | None, *, resume: bool) -> Run:
    if out is None and resume:
        raise UsageError("--resume needs --out: name the run folder that is to go on")
    return Run(out) if out is not None else workflow.free_run(data)


@contextmanager
def _resumable(command: str, data: str, run: Run) -> Iterator[None]:
    try:
        yield
    except TrainingStoppedError as error:
        again = shlex.join(["darkroom", command, data, "--out", str(run.folder), "--resume"])
        raise TrainingStoppedError(f"{error}; go on with: {again}") from error


def main() -> None:
    """Run the command line; errors of the user's become one line and exit code 2."""
    try:
        app.meta()
    except TrainingStoppedError as error:
        _leave(str(error), EXIT_STOPPED)
    except DarkroomError as error:
        _leave(f"error: {error}", EXIT_ERROR)
    except KeyboardInterrupt:
        _leave("stopped", EXIT_STOPPED)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone; nobody is left to tell
        sys.exit(EXIT_ERROR)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        _leave(f"error: {error.strerror or error}{where}", EXIT_ERROR)


def _leave(message: str, code: int) -> NoReturn:
    say(f"darkroom: {message}")
    sys.exit(code)


if __name__ == "__main__":
    main()
