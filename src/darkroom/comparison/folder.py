"""The folder of a comparison: the one place that knows its file names."""

import json
import shutil
from pathlib import Path
from typing import Any

from darkroom.errors import RunError
from darkroom.runs import Run


class Comparison:
    """A folder with runs, and what was found of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.content = folder / "comparison.json"
        self.text = folder / "comparison.txt"
        self.figure = folder / "figures" / "accuracy_latency"
        self.runs = folder / "runs"

    def run(self, name: str) -> Run:
        """The run of one candidate."""
        return Run(self.runs / "".join(c if c.isalnum() or c in "-_." else "-" for c in name))

    def holds(self) -> bool:
        """Whether the folder holds anything of a comparison."""
        return self.content.exists() or self.runs.exists()

    def clear(self) -> None:
        """Delete what belongs to a comparison, and nothing else that may lie in the folder."""
        shutil.rmtree(self.runs, ignore_errors=True)
        for path in (self.text, *(self.figure.with_suffix(suffix) for suffix in (".svg", ".png")), self.content):
            path.unlink(missing_ok=True)

    def read(self) -> dict[str, Any]:
        """comparison.json; raises `RunError` where it is missing or damaged."""
        try:
            content = json.loads(self.content.read_text(encoding="utf-8"))
            content["choice"]["chosen"]
        except OSError as error:
            raise RunError(f"{self.content} is missing: go on with `darkroom compare … --resume`") from error
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{self.content} is damaged ({error}): compare again with --resume") from error
        found: dict[str, Any] = content
        return found

    @property
    def chosen(self) -> Run:
        """The run that was chosen; raises `RunError` where none is yet."""
        return self.run(self.read()["choice"]["chosen"])
