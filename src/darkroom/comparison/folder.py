"""The folders of comparisons and ablations: the one place that knows their file names."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from darkroom import files
from darkroom.config import AblateConfig, CompareConfig, DataConfig, TrainConfig
from darkroom.errors import RunError, UsageError
from darkroom.runs import Run, rebuilt

Options = TypeVar("Options", DataConfig, TrainConfig, CompareConfig, AblateConfig)

STORAGE = frozenset({"cache", "archive", "strict"})
"""Options that a study may be resumed with another value of: they do not change what is trained."""


def folder_name(name: str) -> str:
    """What the folder of a run of that name is called."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)


class Study:
    """A folder with runs that belong together, and what was found of them."""

    kind: str
    command: str
    result: str
    """The part of what was found that is always there."""

    def __init__(self, folder: Path, *, figure: str) -> None:
        self.folder = folder
        self.state = folder / f"{self.kind}-state.json"
        self.content = folder / f"{self.kind}.json"
        self.text = folder / f"{self.kind}.txt"
        self.figure = folder / "figures" / figure
        self.runs = folder / "runs"
        self.lock = folder / ".lock"

    def run(self, name: str) -> Run:
        """The run of that name."""
        return Run(self.runs / folder_name(name))

    def holds(self) -> bool:
        """Whether the folder holds anything that one like it would replace."""
        return self.begun or self.runs.exists()

    @property
    def begun(self) -> bool:
        """Whether one was begun here, and `runs` is not some other folder by that name."""
        return self.state.exists() or self.content.exists()

    def clear(self) -> None:
        """Delete what belongs to it, and nothing else that may lie in the folder."""
        if self.runs.exists():  # and an error tells of it: a run that stays would be taken for one of the next
            shutil.rmtree(self.runs)
        drawn = (self.figure.with_suffix(suffix) for suffix in (".svg", ".png"))
        for path in (*drawn, self.text, self.content, self.state):  # what makes it one goes last
            path.unlink(missing_ok=True)

    def keep(self, state: Mapping[str, Any]) -> None:
        """Replace what is kept while it is under way: what it was begun with, and what was settled since."""
        files.write_json(self.state, dict(state))

    def kept(self) -> dict[str, Any]:
        """What `keep` has written last; raises `RunError` where it is missing or damaged."""
        return self._read(self.state, "requested", f"{self.command} again with --overwrite")

    def read(self) -> dict[str, Any]:
        """What was found; raises `RunError` where it is missing or damaged."""
        return self._read(self.content, self.result, f"go on with `darkroom {self.command} … --resume`")

    def _read(self, path: Path, needed: str, remedy: str) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            content[needed]
        except OSError as error:
            raise RunError(f"{path} is missing: {remedy}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path} is damaged ({error}): {remedy}") from error
        return content


class Comparison(Study):
    """The folder of a comparison."""

    kind, command, result = "comparison", "compare", "choice"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, figure="accuracy_latency")

    @property
    def chosen(self) -> Run:
        """The run that was chosen; raises `RunError` where none is yet."""
        return self.run(self.read()["choice"]["chosen"])

    def clear(self) -> None:
        """Delete what belongs to it, the report among it, and nothing else that may lie in the folder."""
        for path in Run(self.folder).reported:
            path.unlink(missing_ok=True)
        super().clear()


class Ablation(Study):
    """The folder of an ablation."""

    kind, command, result = "ablation", "ablate", "effects"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, figure="ablation")


def require_same_data(study: Study, data: str, kept: Mapping[str, Any]) -> None:
    """Raise `UsageError` where a study is to be resumed on other data than it was begun with."""
    if data != kept["data"]:
        raise UsageError(f"{study.folder} was begun on {kept['data']}, not {data}: give another --out")


def require_same_pictures(study: Study, fingerprint: str, kept: Mapping[str, Any]) -> None:
    """Raise `RunError` where the pictures have changed since a study was begun."""
    if fingerprint != kept["fingerprint"]:
        raise RunError(
            f"{kept['data']} holds other pictures than when {study.folder} was begun: put the old ones back, or "
            f"{study.command} again with --overwrite"
        )


def begun_with(study: Study, given: Options, before: Mapping[str, Any]) -> Options:
    """The options that a study goes on with: those from `before`, and where the data are stored as `given` now.

    Raises:
        UsageError: an option given now is another than before.
    """
    now, default = plain(given), plain(type(given)())
    for name in sorted(now.keys() - STORAGE):
        then = before.get(name, default[name])
        if now[name] not in (default[name], then):
            raise UsageError(
                f"--{name.replace('_', '-')} is {_typed(now[name])}, but {study.folder} was begun with {_typed(then)}: "
                "leave it out to resume"
            )
    kept = {name: tuple(value) if isinstance(value, list) else value for name, value in before.items()}
    kept |= {name: getattr(given, name) for name in now.keys() & STORAGE}
    return rebuilt(type(given), kept)


def plain(options: DataConfig | TrainConfig | CompareConfig | AblateConfig) -> dict[str, Any]:
    """Options as JSON has them."""
    content: dict[str, Any] = json.loads(json.dumps(asdict(options), default=str))
    return content


def _typed(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
