"""`import darkroom`: every public name leads somewhere, loads nothing heavy, and takes the steps it promises."""

import ast
import inspect
import subprocess
import sys
from dataclasses import is_dataclass
from pathlib import Path

import pytest

import darkroom
from darkroom import config
from finished import CLASSES, Finished, draw_blobs

QUICK = {"epochs": 1, "threads": 1, "width": 0.5, "precision": "fp32", "memory_format": "contiguous"}
PUBLIC = [name for name in darkroom.__all__ if not name.startswith("_")]


def declared() -> dict[str, str]:
    """Where type checkers are told that each public name comes from, in the form of `PLACES`."""
    tree = ast.parse(Path(darkroom.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    found = {}
    for statement in block.body:
        assert isinstance(statement, ast.ImportFrom)
        for alias in statement.names:
            found[alias.asname or alias.name] = f"{statement.module}{f':{alias.name}' if alias.asname else ''}"
    return found


def loaded_by(program: str) -> set[str]:
    """Modules that a program loads."""
    command = [sys.executable, "-c", f"import sys\n{program}\nprint(sorted(sys.modules))"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(ast.literal_eval(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_something_that_says_what_it_is(name: str) -> None:
    value = getattr(darkroom, name)
    assert callable(value)
    assert inspect.getdoc(value)


def test_people_programs_and_type_checkers_are_told_the_same() -> None:
    assert set(PUBLIC) == set(darkroom.PLACES)
    assert declared() == darkroom.PLACES
    assert set(PUBLIC) <= set(dir(darkroom))


def test_no_public_name_is_that_of_a_module() -> None:
    """The import system would put the module in the place of the function."""
    folder = Path(darkroom.__file__).parent
    modules = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    assert not modules & set(PUBLIC)


def test_all_settings_are_public() -> None:
    kinds = {name for name, value in vars(config).items() if is_dataclass(value)}
    assert kinds <= set(PUBLIC)


def test_other_names_are_told_as_python_does() -> None:
    with pytest.raises(AttributeError, match="module 'darkroom' has no attribute 'trian'"):
        darkroom.trian  # noqa: B018
    with pytest.raises(ImportError):
        from darkroom import trian  # noqa: F401


def test_importing_it_loads_nothing_heavy() -> None:
    loaded = loaded_by("import darkroom; darkroom.__version__")
    assert not loaded & {"torch", "numpy", "PIL", "rich", "cyclopts", "darkroom.workflow"}


@pytest.mark.parametrize("name", ["TrainConfig", "Run", "train", "evaluate", "predict", "DarkroomError"])
def test_naming_a_part_loads_neither_torch_nor_numpy(name: str) -> None:
    loaded = loaded_by(f"import darkroom; darkroom.{name}")
    assert not loaded & {"torch", "numpy", "matplotlib", "onnxruntime"}


@pytest.mark.parametrize("name", ["Bundle", "Prediction", "write_report", "verify_run", "serve"])
def test_those_who_read_what_is_finished_need_no_torch(name: str) -> None:
    assert "torch" not in loaded_by(f"import darkroom; darkroom.{name}")


def test_predicting_needs_no_torch(finished_run: Finished) -> None:
    program = f"import darkroom; darkroom.predict({str(finished_run.run.folder)!r}, {str(finished_run.run.samples)!r})"
    assert not loaded_by(program) & {"torch", "sklearn", "scipy", "matplotlib"}


def test_the_steps_from_pictures_to_an_answer(tmp_path: Path) -> None:
    draw_blobs(tmp_path / "blobs", pictures=20)
    data, settings = str(tmp_path / "blobs"), darkroom.DataConfig(cache=tmp_path / "cache")
    assert "broken.png" in "\n".join(darkroom.examine(data, settings).lines())
    dataset = darkroom.load_data(data, settings)
    assert dataset.manifest.classes == CLASSES
    run = darkroom.Run(str(tmp_path / "run"))
    given = darkroom.train(data, run, data_config=settings, config=darkroom.TrainConfig(**QUICK), dataset=dataset)
    assert given is run
    assert len(run.read_history()) == 1
    metrics = darkroom.evaluate(run, data_config=settings)
    assert metrics["test_openings"] == 0
    assert 0 <= metrics["validation"]["accuracy"]["value"] <= 1
    bundle = darkroom.Bundle.open(darkroom.export_bundle(run, data_config=settings))
    assert bundle.info.classes == CLASSES
    answers = darkroom.predict(run.folder, run.samples, tmp_path / "blobs" / CLASSES[0] / "0.png")
    assert len(answers) == len(list(run.samples.iterdir())) + 1
    assert all(isinstance(answer, darkroom.Prediction) for answer in answers)


def test_run_all_returns_the_run(finished_run: Finished, tmp_path: Path) -> None:
    copied = finished_run.copy(tmp_path / "run")
    run = darkroom.run_all(str(copied.data), copied.run, data_config=copied.config, resume=True)
    assert run.read_metrics()["test_openings"] == 1


def test_a_broken_picture_gets_a_failure_among_the_answers(finished_run: Finished, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    good, broken = darkroom.predict(finished_run.run.bundle, next(finished_run.run.samples.iterdir()), tmp_path)
    assert isinstance(good, darkroom.Prediction)
    assert isinstance(broken, darkroom.Failure)


def test_what_is_wrong_is_raised_in_one_line(tmp_path: Path) -> None:
    for call in (
        lambda: darkroom.examine(str(tmp_path / "nowhere")),
        lambda: darkroom.evaluate(darkroom.Run(tmp_path / "nowhere")),
        lambda: darkroom.predict(tmp_path),
        lambda: darkroom.predict(tmp_path, "x.png"),
        lambda: darkroom.TrainConfig(minutes=1, epochs=1),
    ):
        with pytest.raises(darkroom.DarkroomError) as caught:
            call()
        assert "\n" not in str(caught.value)
