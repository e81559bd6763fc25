"""Fixtures that several files of tests share."""

import atexit
import os
import shutil
import tempfile

import pytest

# Before darkroom is imported, and for the processes that tests start: nothing may land in the user's own cache.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="darkroom-tests-")
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

from finished import Finished, finish  # noqa: E402


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A whole `darkroom run`, made once; tests that change it change a `copy` of it."""
    return finish(tmp_path_factory.mktemp("finished"))
