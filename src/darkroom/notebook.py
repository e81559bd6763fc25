"""`darkroom notebook`: every step on a data set as a Jupyter notebook, with words between the cells.

walkthrough.md beside this module is its one source: fenced Python becomes cells of code, all else cells of text.
"""

import json
import re
import shlex
from importlib.resources import files as resources
from pathlib import Path
from string import Template

from darkroom import files, workflow
from darkroom.config import StorageConfig
from darkroom.errors import DataError, UsageError

SOURCE = "walkthrough.md"
FENCED = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}

BUDGETS = {"digits": "epochs=20"}
"""Of a training whose length is known; all others get `MINUTES`."""
MINUTES = "minutes=5"

STORAGE = StorageConfig()


def write_notebook(
    data: str, path: Path | None = None, *, storage: StorageConfig = STORAGE, overwrite: bool = False
) -> Path:
    """Write the notebook for a data set, without outputs, and return its path; NAME-walkthrough.ipynb by default.

        darkroom.write_notebook("photos/", Path("photos.ipynb"))

    Raises:
        DataError: the data set does not exist.
        UsageError: the file is there already, and `overwrite` is not given.
    """
    target = path or Path(f"{workflow.name_of(data)}-walkthrough.ipynb")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} is there already: --overwrite it, or give another --out")
    files.write_text(target, notebook_of(data, storage=storage))
    return target


def notebook_of(data: str, *, storage: StorageConfig = STORAGE) -> str:
    """The content of the notebook file; the same for the same data set and places of storage."""
    import nbformat
    from nbformat import v4

    cells = [
        v4.new_code_cell(text, id=f"cell-{number}") if is_code else v4.new_markdown_cell(text, id=f"cell-{number}")
        for number, (is_code, text) in enumerate(cells_of(_filled_in(data, storage)), start=1)
    ]
    notebook = v4.new_notebook(cells=cells, metadata=METADATA)
    nbformat.validate(notebook)
    text: str = nbformat.writes(notebook)
    return text.rstrip("\n") + "\n"


def cells_of(text: str) -> list[tuple[bool, str]]:
    """Cells of a text, and whether each is code: fenced Python is, what lies between is not."""
    parts = [part.strip("\n") for part in FENCED.split(text)]  # text and code in turns, beginning with text
    return [(bool(place % 2), part) for place, part in enumerate(parts) if part]


def _filled_in(data: str, storage: StorageConfig) -> str:
    """walkthrough.md for a data set."""
    argument, given = _argument(data), _given(storage)
    return Template(resources("darkroom").joinpath(SOURCE).read_text(encoding="utf-8")).substitute(
        name=workflow.name_of(data),
        command=shlex.join(["darkroom", "notebook", argument]),
        imports="from pathlib import Path\n\n" if given else "",
        data=_literal(argument),
        storage=given,
        run=_literal(f"{workflow.RUNS.as_posix()}/{workflow.name_of(data)}-walkthrough"),
        budget=BUDGETS.get(data, MINUTES),
    )


def _argument(data: str) -> str:
    """What names the data set from any folder: notebooks run in their own."""
    from darkroom.data.sources import BUILT_IN

    path = Path(data).expanduser().absolute()
    if data not in BUILT_IN and not path.exists():
        raise DataError(f"{path} does not exist: give a folder, an archive, a .csv, or one of {', '.join(BUILT_IN)}")
    return data if data in BUILT_IN else str(path)


def _given(storage: StorageConfig) -> str:
    """Arguments of `DataConfig` for what is not as it is by default."""
    places = {"archive": storage.archive, "cache": storage.cache if storage.cache != STORAGE.cache else None}
    return ", ".join(
        f"{name}=Path({_literal(str(path.expanduser().absolute()))})"
        for name, path in places.items()
        if path is not None
    )


def _literal(text: str) -> str:
    """Text as Python writes it, in double quotes."""
    return json.dumps(text, ensure_ascii=False)
