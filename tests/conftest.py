"""Fixtures that several files of tests share."""

import pytest

from finished import Finished, finish


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A whole `darkroom run`, made once; tests that change it change a `copy` of it."""
    return finish(tmp_path_factory.mktemp("finished"))
