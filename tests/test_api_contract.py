"""The interface against its own description, by schemathesis, which makes requests up from the document."""

import warnings
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from darkroom.config import ServeConfig
from darkroom.web import create_app
from serving import FormulaEngine

with warnings.catch_warnings():  # of its own dependencies
    warnings.simplefilter("ignore")
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")


@pytest.mark.filterwarnings("ignore")
def test_what_is_described_is_what_is_answered() -> None:
    schema = schemathesis.openapi.from_wsgi("/api/v1/openapi.json", create_app(FormulaEngine(), ServeConfig()))
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 5
    for operation in operations:
        _ask(operation)


def _ask(operation: Any) -> None:
    """Requests that the document allows, and some that it does not."""

    @given(case=operation.as_strategy())
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    def answered_as_described(case: "schemathesis.Case") -> None:
        response = case.call_and_validate(checks=[schemathesis.checks.not_a_server_error])
        assert "x-request-id" in {name.lower() for name in response.headers}

    answered_as_described()
