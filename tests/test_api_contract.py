"""The interface against its own description, by schemathesis, which makes requests up from the document."""

import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

from darkroom.config import ServeConfig
from darkroom.web import create_app
from darkroom.web.keys import add_key
from serving import FormulaEngine

with warnings.catch_warnings():  # of its own dependencies
    warnings.simplefilter("ignore")
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")

SHAPED_BY_THE_MODEL = ("/api/v1/explain", ":predict")
"""A schema cannot say what is a picture, nor how high and wide it is: here data that it allows may be refused."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("mode", "guarded"), [("positive", False), ("positive", True), ("negative", False)])
def test_what_is_described_is_what_is_answered(mode: str, guarded: bool, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    headers = {"Authorization": f"Bearer {add_key(keys, 'tests')}"} if guarded else {}
    app = create_app(FormulaEngine(), ServeConfig(api_keys=keys if guarded else None))
    schema = schemathesis.openapi.from_wsgi("/api/v1/openapi.json", app)
    schema.validate()
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 5
    for operation in operations:
        _ask(operation, schemathesis.GenerationMode(mode), headers)


def _ask(operation: Any, mode: Any, headers: dict[str, str]) -> None:
    """Requests that the document allows, or that it does not; the latter where there is anything to be wrong."""

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    def answered_as_described(case: "schemathesis.Case") -> None:
        response = case.call(headers=headers)
        case.validate_response(response, headers=headers, excluded_checks=_senseless(case, response.status_code))
        assert "x-request-id" in {name.lower() for name in response.headers}

    with suppress(Unsatisfiable):
        answered_as_described()


def _senseless(case: "schemathesis.Case", status: int) -> list[Any]:
    checks = schemathesis.checks.CHECKS
    left_out = []
    if case.operation.path.endswith(SHAPED_BY_THE_MODEL):
        left_out.append(checks.get_one("positive_data_acceptance"))
    if case.media_type == "multipart/form-data" or status == 413:  # other fields are ignored; 413 refuses, too
        left_out.append(checks.get_one("negative_data_rejection"))
    return left_out
