"""Fixtures that several files of tests share."""

import atexit
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# Before darkroom is imported, and for the processes that tests start: nothing may land in the user's own cache.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="darkroom-tests-")
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)
os.environ.pop("COLUMNS", None)  # pytest-xdist gives its processes one

import bundles  # noqa: E402
from darkroom.engines.onnx_runtime import OnnxRuntimeEngine  # noqa: E402
from darkroom.web.tracing import log  # noqa: E402
from finished import Finished, finish  # noqa: E402
from reported import Reported, report  # noqa: E402

hypothesis.settings.register_profile("shared machine", deadline=None)  # others run on it, too
hypothesis.settings.load_profile("shared machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    """For where everything is installed, so that nothing may be passed over unnoticed."""
    parser.addoption("--skips-fail", action="store_true", help="end with 1 where a test is skipped")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let a skipped test fail the session."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--skips-fail") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A whole `darkroom run`, made once; tests that change it change a `copy` of it."""
    return finish(tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="session")
def reported_run(finished_run: Finished, tmp_path_factory: pytest.TempPathFactory) -> Reported:
    """A copy of that run with its report, made once; tests that change it change a `copy` of it."""
    return report(finished_run, tmp_path_factory.mktemp("reported") / "run")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small real bundle that tells colours."""
    folder = tmp_path_factory.mktemp("colours") / "bundle"
    bundles.make_bundle(folder)
    return folder


@pytest.fixture(scope="session")
def engine(folder: Path) -> Iterator[OnnxRuntimeEngine]:
    """The engine of that bundle, shared by all tests that only ask it."""
    with OnnxRuntimeEngine.open(folder, threads=1) as opened:
        yield opened


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    """The lines of the access log, as they are written."""
    written: list[dict[str, Any]] = []

    class Keeper(logging.Handler):
        """Keeps what is logged."""

        def emit(self, record: logging.LogRecord) -> None:
            """Keep one line."""
            written.append(json.loads(record.getMessage()))

    keeper = Keeper()
    log.addHandler(keeper)
    log.setLevel(logging.INFO)
    yield written
    log.removeHandler(keeper)
    log.setLevel(logging.NOTSET)
