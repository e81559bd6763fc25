"""`darkroom notebook`: what is written for whom, that its cells name what exists, and that they run."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from darkroom.cli import main
from darkroom.config import StorageConfig
from darkroom.errors import DataError, UsageError
from darkroom.notebook import cells_of, notebook_of, write_notebook
from finished import Finished, draw_blobs
from snippets import faults

REPOSITORY = Path(__file__).parents[1]


def cells(text: str, kind: str = "code") -> list[str]:
    """The sources of all cells of a kind."""
    found = (cell for cell in json.loads(text)["cells"] if cell["cell_type"] == kind)
    return ["".join(cell["source"]) for cell in found]


def shown(text: str) -> Iterator[str]:
    """The names of the figures that are shown."""
    for cell in cells(text):
        if 'show("' in cell:
            yield cell.partition('show("')[2].partition('"')[0]


def test_fenced_python_is_code_and_all_else_is_text() -> None:
    text = "# One\n\nTwo.\n\n```python\nx = 1\n\n\nprint(x)\n```\n\n```toml\n[a]\n```\n\n```python\ny\n```\n"
    assert cells_of(text) == [
        (False, "# One\n\nTwo."),
        (True, "x = 1\n\n\nprint(x)"),
        (False, "```toml\n[a]\n```"),
        (True, "y"),
    ]


def test_the_notebook_of_the_repository_is_the_one_of_digits() -> None:
    committed = (REPOSITORY / "notebooks" / "walkthrough.ipynb").read_text(encoding="utf-8")
    assert committed == notebook_of("digits"), "write it anew: make reference"


def test_it_is_the_same_each_time_and_has_no_outputs() -> None:
    text = notebook_of("digits")
    assert notebook_of("digits") == text
    assert all(cell.get("outputs", []) == [] for cell in json.loads(text)["cells"])
    assert text.endswith("}\n")


def test_its_cells_name_what_exists() -> None:
    written = cells(notebook_of("digits"))
    assert len(written) > 20
    assert [fault for cell in written for fault in faults(cell)] == []
    assert list(faults("\n".join(written))) == []


def test_its_figures_are_those_that_a_run_leaves(finished_run: Finished) -> None:
    names = list(shown(notebook_of("digits")))
    assert len(names) > 8
    for name in names:
        assert (finished_run.run.figures / f"{name}.png").is_file(), name


def test_every_code_cell_comes_after_words() -> None:
    kinds = [cell["cell_type"] for cell in json.loads(notebook_of("digits"))["cells"]]
    assert kinds[0] == "markdown"
    assert kinds.count("markdown") > 15


def test_pictures_of_the_users_own_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_blobs(tmp_path / 'my "best" pictures', pictures=1)
    monkeypatch.chdir(tmp_path)
    storage = StorageConfig(cache=Path("cache"))
    path = write_notebook('my "best" pictures', storage=storage)
    assert path == Path("my-best-pictures-walkthrough.ipynb")
    text = path.read_text(encoding="utf-8")
    first = cells(text)[0]
    found: dict[str, Any] = {}
    exec(first.partition("def show")[0].replace("from IPython.display import Image", ""), found)  # noqa: S102
    assert found["DATA"] == str(tmp_path / 'my "best" pictures')
    assert found["SETTINGS"].cache == tmp_path / "cache"
    assert found["run"].folder == Path("runs/my-best-pictures-walkthrough")
    assert any("TrainConfig(minutes=5)" in cell for cell in cells(text))
    assert list(faults("\n".join(cells(text)))) == []


def test_an_archive_is_named_where_the_data_need_one(tmp_path: Path) -> None:
    (tmp_path / "animals.zip").write_bytes(b"")
    text = notebook_of("animals10", storage=StorageConfig(archive=tmp_path / "animals.zip"))
    assert f'archive=Path("{tmp_path / "animals.zip"}")' in cells(text)[0]
    assert 'DATA = "animals10"' in cells(text)[0]


def test_a_file_that_is_there_stays_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "mine.ipynb"
    path.write_text("mine")
    with pytest.raises(UsageError, match="is there already: --overwrite it, or give another --out"):
        write_notebook("digits", path)
    assert path.read_text() == "mine"
    assert write_notebook("digits", path, overwrite=True) == path
    assert path.read_text(encoding="utf-8") == notebook_of("digits")


def test_data_that_are_not_there_are_told_of(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist: give a folder, an archive"):
        write_notebook(str(tmp_path / "nowhere"), tmp_path / "x.ipynb")
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as leaving:
        main(["notebook", "digits", "--out", "my walk.ipynb"])
    assert not leaving.value.code
    opened = shlex.join(["jupyter", "lab", "my walk.ipynb"])
    assert capsys.readouterr().out == f"my walk.ipynb\nopen it: {opened}\n"
    assert Path("my walk.ipynb").read_text(encoding="utf-8") == notebook_of("digits")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_every_cell_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    text = notebook_of("digits")
    notebook = nbformat.reads(text, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == len(list(shown(text)))
    printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
    assert "the test has been opened 1 time(s)" in printed
    assert "ok    " in printed
    assert "FAILED" not in printed
    run = tmp_path / "runs" / "digits-walkthrough"
    for made in ("report.pdf", "slides.pptx", "bundle/model.onnx"):
        assert (run / made).is_file()
