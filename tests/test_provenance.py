"""Where a result comes from is recorded, and what cannot be known is left open."""

import json
import os
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

from darkroom import __version__, provenance


def test_provenance_is_true_and_fits_into_json() -> None:
    told = json.loads(json.dumps(provenance.provenance()))
    assert told["versions"]["darkroom"] == __version__
    assert told["versions"]["torch"] == version("torch")
    assert abs((datetime.now(UTC) - datetime.fromisoformat(told["created"])).total_seconds()) < 60
    assert told["hardware"]["cores"] >= 1
    assert told["hardware"]["memory_bytes"] > 10**8
    assert told["hardware"]["processor"]


def test_a_package_that_is_not_there_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(provenance, "version", missing)
    assert provenance.provenance()["versions"].keys() == {"darkroom", "python"}


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("200000 100000", 2), ("150000 100000", 2), ("1000 100000", 1), ("max 100000", 8), ("nonsense", 8), (None, 8)],
)
def test_a_container_has_the_cores_that_its_share_of_time_amounts_to(
    quota: str | None, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if quota is not None:
        (tmp_path / "cpu.max").write_text(f"{quota}\n")
    bound = provenance._quota(tmp_path / "cpu.max")
    monkeypatch.setattr(provenance, "_quota", lambda: bound)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert provenance.available_cores() == cores


def commit_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """The commit recorded by a darkroom that lies in `folder`/src/darkroom."""
    place = folder / "src" / "darkroom" / "provenance.py"
    place.parent.mkdir(parents=True)
    monkeypatch.setattr(provenance, "__file__", str(place))
    found: str | None = provenance.provenance()["commit"]
    return found


def test_the_commit_is_that_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@x", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message", "first")
    assert commit_at(tmp_path, monkeypatch) == git("rev-parse", "HEAD")


def test_a_repository_further_up_is_not_darkrooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    assert commit_at(tmp_path / "lib" / "python3.11", monkeypatch) is None


@pytest.mark.parametrize("error", [OSError("no git"), subprocess.TimeoutExpired("git", 5)])
def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise error

    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(subprocess, "run", failing)
    assert commit_at(tmp_path, monkeypatch) is None
