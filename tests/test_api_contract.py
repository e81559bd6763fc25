"""The interface against its own description, by schemathesis, which makes requests up from the document."""

import warnings

import pytest
from hypothesis import HealthCheck, settings

from darkroom.config import ServeConfig
from darkroom.web import create_app
from serving import FormulaEngine

with warnings.catch_warnings():  # of its own dependencies
    warnings.simplefilter("ignore")
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")


@pytest.fixture
def described() -> object:
    """The document, and the application that it describes."""
    return schemathesis.openapi.from_wsgi("/api/v1/openapi.json", create_app(FormulaEngine(), ServeConfig()))


schema = schemathesis.pytest.from_fixture("described")


@pytest.mark.filterwarnings("ignore")
@schema.parametrize()
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_is_described_is_what_is_answered(case: "schemathesis.Case") -> None:
    response = case.call_and_validate(checks=[schemathesis.checks.not_a_server_error])
    assert "x-request-id" in {name.lower() for name in response.headers}
