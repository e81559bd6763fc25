"""Every single value in the JSON files of a run, changed by itself, makes `darkroom verify` fail."""

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from darkroom.config import DataConfig
from darkroom.runs import Run
from darkroom.verify.checks import Check
from darkroom.verify.report import report
from darkroom.verify.run import Verification
from reported import Reported
from verifying import remembered

FREE = {
    "config.json": (
        ("data", "root"),  # where the pictures lie, which may move: their hashes are compared instead
        ("seconds",),  # of all stages together: added after the export; a report that shows them has their hash
    ),
    "metrics.json": (("test_openings",),),  # upwards, since test may be opened after the export
    "bundle/bundle.json": (("parity",),),  # measured against the network, which needs PyTorch
}
"""What is not compared where there is no report, and why."""

SAMPLED = 8
Leaf = tuple[str | int, ...]
Checks = Callable[[Run, DataConfig], Iterator[Check]]


def of_run(run: Run, config: DataConfig) -> Iterator[Check]:
    """The checks below a report, so that its hashes find nothing for them."""
    return Verification(run, config, sample=1).checks()


def of_report(run: Run, config: DataConfig) -> Iterator[Check]:
    """Those of the report alone."""
    return report(run, run)


CASES: dict[str, Checks] = {
    "config.json": of_run,
    "metrics.json": of_run,
    "bundle/bundle.json": of_run,
    "insights.json": of_report,
    "report.json": of_report,
}


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with remembered():
        yield


def leaves(content: Any, path: Leaf = ()) -> Iterator[Leaf]:
    """Paths of all values that hold no others."""
    if isinstance(content, dict | list) and content:
        for name, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from leaves(value, (*path, name))
    else:
        yield path


def another(value: Any) -> Any:
    """A value of the same kind that is not the same."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    return 1.01 * value + 0.01 if isinstance(value, float) else ["x"] if isinstance(value, list) else f"{value}x"


def changed(text: str, leaf: Leaf) -> str:
    """The text of a JSON file with another value there; bundle.json says of itself that it is whole."""
    content = json.loads(text)
    here = content
    for part in leaf[:-1]:
        here = here[part]
    here[leaf[-1]] = another(here[leaf[-1]])
    if leaf != ("sha256",) and "sha256" in content and "format" in content:
        rest = {name: value for name, value in content.items() if name != "sha256"}
        content = rest | {"sha256": hashlib.sha256(written(rest).encode()).hexdigest()}
    return written(content)


def written(content: Any) -> str:
    """As darkroom writes JSON files."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def unnoticed(run: Run, config: DataConfig, name: str, chosen: Callable[[list[Leaf]], list[Leaf]]) -> list[Leaf]:
    """The chosen leaves of a file whose change no check has found."""
    path, checks = run.folder / name, CASES[name]
    text = path.read_text(encoding="utf-8")
    assert all(check.passed for check in checks(run, config))
    found = []
    for leaf in chosen(list(leaves(json.loads(text)))):
        path.write_text(changed(text, leaf), encoding="utf-8")
        if all(check.passed for check in checks(run, config)):
            found.append(leaf)
    path.write_text(text, encoding="utf-8")
    return found


def free(name: str, leaf: Leaf) -> bool:
    return any(leaf[: len(beginning)] == beginning for beginning in FREE.get(name, ()))


@pytest.mark.parametrize("name", CASES)
def test_a_changed_value_is_found(reported_run: Reported, tmp_path: Path, name: str) -> None:
    finished = reported_run.copy(tmp_path / "run")

    def some(found: list[Leaf]) -> list[Leaf]:
        return random.Random(0).sample([leaf for leaf in found if not free(name, leaf)], SAMPLED)  # noqa: S311

    assert unnoticed(finished.run, finished.config, name, some) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_changed_value_is_found(reported_run: Reported, tmp_path: Path, name: str) -> None:
    finished = reported_run.copy(tmp_path / "run")
    missed = unnoticed(finished.run, finished.config, name, list)
    assert [leaf for leaf in missed if not free(name, leaf)] == []
    for beginning in FREE.get(name, ()):
        assert any(leaf[: len(beginning)] == beginning for leaf in missed), f"{beginning} is no longer free"
