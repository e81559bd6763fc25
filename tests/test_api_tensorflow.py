"""TensorFlow Serving's REST interface, as our server speaks it."""

import base64
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import bundles
from darkroom.config import ServeConfig
from darkroom.engines.base import Engine
from darkroom.preprocess import load
from darkroom.web import create_app
from json_schema import faults
from serving import RED, FormulaEngine

MODEL = "/v1/models/colours"
GREEN = bundles.encoded((10, 240, 10))


@pytest.fixture
def client(engine: Engine) -> FlaskClient:
    return create_app(engine, ServeConfig(max_files=3, max_file_megabytes=0.1)).test_client()


def pixels(*pictures: bytes) -> np.ndarray:
    """As the network sees them (N, H, W, 3)."""
    return np.stack([load(picture, bundles.CONTRACT) for picture in pictures])


def b64(content: bytes) -> dict[str, str]:
    """A file as TensorFlow's REST interface has it."""
    return {"b64": base64.b64encode(content).decode()}


def assert_error(response: TestResponse, status: int, *words: str) -> None:
    """Hold the shape of TensorFlow's errors."""
    assert response.status_code == status, response.text
    assert response.content_type == "application/json"
    content = response.get_json()
    assert set(content) == {"error"}
    for word in words:
        assert word in content["error"]


EXPECTED = bundles.expected_probabilities(pixels(RED, GREEN))


@pytest.mark.parametrize("url", [MODEL, f"{MODEL}/versions/1"])
@pytest.mark.parametrize(
    "body",
    [
        {"instances": pixels(RED, GREEN).tolist()},
        {"signature_name": "serving_default", "instances": pixels(RED, GREEN).tolist()},
        {"instances": [{"pixels": rows} for rows in pixels(RED, GREEN).tolist()]},
        {"instances": [b64(RED), b64(GREEN)]},
        {"signature_name": "encoded", "instances": [{"pictures": b64(RED)}, {"pictures": b64(GREEN)}]},
    ],
)
def test_rows_are_answered_in_rows(client: FlaskClient, url: str, body: dict[str, Any]) -> None:
    response = client.post(f"{url}:predict", json=body)
    assert response.status_code == 200, response.text
    content = response.get_json()
    assert set(content) == {"predictions"}
    assert [set(row) for row in content["predictions"]] == [{"logits", "probabilities"}] * 2
    np.testing.assert_allclose([row["probabilities"] for row in content["predictions"]], EXPECTED, atol=1e-5)


@pytest.mark.parametrize(
    "inputs",
    [
        pixels(RED, GREEN).tolist(),
        {"pixels": pixels(RED, GREEN).tolist()},
        [b64(RED), b64(GREEN)],
        {"pictures": [b64(RED), b64(GREEN)]},
    ],
)
def test_columns_are_answered_in_columns(client: FlaskClient, inputs: Any) -> None:
    content = client.post(f"{MODEL}:predict", json={"inputs": inputs}).get_json()
    assert set(content) == {"outputs"}
    assert set(content["outputs"]) == {"logits", "probabilities"}
    np.testing.assert_allclose(content["outputs"]["probabilities"], EXPECTED, atol=1e-5)


@pytest.mark.parametrize("url", [MODEL, f"{MODEL}/versions/1"])
def test_status_and_metadata(client: FlaskClient, url: str) -> None:
    [version] = client.get(url).get_json()["model_version_status"]
    assert (version["version"], version["state"]) == ("1", "AVAILABLE")
    assert version["status"] == {"error_code": "OK", "error_message": ""}
    content = client.get(f"{url}/metadata").get_json()
    assert content["model_spec"] == {"name": "colours", "signature_name": "", "version": "1"}
    signatures = content["metadata"]["signature_def"]["signature_def"]
    assert set(signatures) == {"serving_default", "encoded"}
    given = signatures["serving_default"]["inputs"]["pixels"]
    assert given["dtype"] == "DT_UINT8"
    assert [dimension["size"] for dimension in given["tensor_shape"]["dim"]] == ["-1", "16", "24", "3"]
    assert signatures["encoded"]["inputs"]["pictures"]["dtype"] == "DT_STRING"
    for signature in signatures.values():
        assert set(signature["outputs"]) == {"logits", "probabilities"}


def test_the_description_holds(client: FlaskClient) -> None:
    document = client.get("/api/v1/openapi.json").get_json()
    asked = [
        ("post", "/v1/models/{name}:predict", client.post(f"{MODEL}:predict", json={"instances": [b64(RED)]})),
        ("post", "/v1/models/{name}:predict", client.post(f"{MODEL}:predict", json={"inputs": [b64(RED)]})),
        ("post", "/v1/models/{name}:predict", client.post(f"{MODEL}:predict", json={})),
        ("get", "/v1/models/{name}", client.get(MODEL)),
        ("get", "/v1/models/{name}", client.get("/v1/models/other")),
        ("get", "/v1/models/{name}/versions/{version}/metadata", client.get(f"{MODEL}/versions/1/metadata")),
    ]
    for method, path, response in asked:
        answer = document["paths"][path][method]["responses"][str(response.status_code)]
        assert faults(response.get_json(), answer["content"]["application/json"]["schema"], document) == []


def test_as_many_rows_are_taken_as_there_may_be(client: FlaskClient) -> None:
    picture = json.dumps({"pixels": [[[9, 99, 99]] * 24] * 16}, indent=1)
    for rows, status in ((1024, 200), (1025, 413)):
        body = f'{{"instances": [{",".join([picture] * rows)}]}}'
        assert client.post(f"{MODEL}:predict", data=body, content_type="application/json").status_code == status


@pytest.mark.parametrize(("side", "most"), [(32, 1024), (224, 20), (2048, 1)])
def test_rows_of_large_pictures_are_fewer(side: int, most: int) -> None:
    contract = replace(bundles.CONTRACT, width=side, height=side)
    client = create_app(FormulaEngine(preprocessing=contract), ServeConfig()).test_client()
    assert_error(client.post(f"{MODEL}:predict", json={"instances": [0] * (most + 1)}), 413, f"at most {most} at")
    assert_error(client.post(f"{MODEL}:predict", json={"instances": [0] * most}), 400, f"shape [{side}, {side}, 3]")


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("get", "/v1/models/other"),
        ("get", f"{MODEL}/versions/2"),
        ("get", f"{MODEL}/versions/one/metadata"),
        ("post", "/v1/models/other:predict"),
        ("post", f"{MODEL}/versions/2:predict"),
        ("get", f"{MODEL}/labels/stable"),
        ("post", f"{MODEL}/labels/stable:predict"),
        ("get", "/v1/elsewhere"),
    ],
)
def test_what_is_not_served_is_404_in_tensorflow_s_shape(client: FlaskClient, method: str, url: str) -> None:
    options = {"json": {"instances": [b64(RED)]}} if method == "post" else {}
    assert_error(getattr(client, method)(url, **options), 404)


@pytest.mark.parametrize("url", [f"{MODEL}:classify", f"{MODEL}:regress"])
def test_other_verbs_are_refused_in_tensorflow_s_shape(client: FlaskClient, url: str) -> None:
    assert_error(client.post(url, json={}), 405)


ONE = pixels(RED).tolist()


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"{", 400, "not JSON"),
        (b"[]", 400, "either instances"),
        (b"{}", 400, "either instances"),
        (json.dumps({"instances": ONE, "inputs": ONE}).encode(), 400, "either instances"),
        (json.dumps({"instances": ONE, "more": 1}).encode(), 400, "'more'"),
        (b'{"instances": []}', 400, "a row for each picture"),
        (b'{"instances": 5}', 400, "a row for each picture"),
        (b'{"instances": [5]}', 400, "shape [16, 24, 3]"),
        (b'{"instances": [[1, [2]]]}', 400, "shape [16, 24, 3]"),
        (b'{"instances": ["text"]}', 400, "shape [16, 24, 3]"),
        (b'{"instances": [null]}', 400, "shape [16, 24, 3]"),
        (json.dumps({"instances": [[[[0.5] * 3] * 24] * 16]}).encode(), 400, "whole numbers"),
        (json.dumps({"instances": [[[[256] * 3] * 24] * 16]}).encode(), 400, "0 to 255"),
        (json.dumps({"instances": [[[[-1] * 3] * 24] * 16]}).encode(), 400, "0 to 255"),
        (json.dumps({"instances": [[[[10**30] * 3] * 24] * 16]}).encode(), 400, "whole numbers"),
        (json.dumps({"instances": [[[[True] * 3] * 24] * 16]}).encode(), 400, "whole numbers"),
        (json.dumps({"instances": ONE, "signature_name": "other"}).encode(), 400, "'other'"),
        (json.dumps({"instances": ONE, "signature_name": 7}).encode(), 400, "'7'"),
        (json.dumps({"instances": ONE, "signature_name": "encoded"}).encode(), 400, "Row 0 must be"),
        (json.dumps({"instances": [b64(RED), 5]}).encode(), 400, "Row 1 must be"),
        (json.dumps({"instances": [b64(RED), {"b64": "!"}]}).encode(), 400, "Row 1 is not base64"),
        (json.dumps({"instances": [b64(RED), b64(b"text")]}).encode(), 400, "Row 1: not a picture"),
        (json.dumps({"instances": [b64(bytes(100_001))]}).encode(), 400, "Row 0 is a picture of 100001 bytes"),
        (json.dumps({"instances": [b64(RED)] * 4}).encode(), 413, "4 rows"),
    ],
)
def test_bad_bodies_are_refused_whole(client: FlaskClient, body: bytes, status: int, said: str) -> None:
    assert_error(client.post(f"{MODEL}:predict", data=body, content_type="application/json"), status, said)
