"""The interface for programs: what it takes, what it says, and that it is what its description says."""

import base64
import io
import json
import re
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import ExifTags, Image
from werkzeug.test import TestResponse

import bundles
from darkroom.config import ServeConfig
from darkroom.engines.base import Engine
from darkroom.preprocess import Preprocessing
from darkroom.web import create_app
from darkroom.web.docs import ALL
from darkroom.web.endpoints import JSON
from darkroom.web.openapi import address_of
from json_schema import faults, resolve
from serving import RED, FormulaEngine, assert_problem, upload

NOVELTY = {"score": "energy", "threshold": -3.0, "false_alarms": 0.05}


@pytest.fixture
def app(engine: Engine) -> Flask:
    return create_app(engine, ServeConfig())


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def encoded(content: bytes, **more: Any) -> dict[str, Any]:
    """A picture in JSON."""
    return {"content": base64.b64encode(content).decode(), **more}


def comparable(entry: dict[str, Any]) -> dict[str, Any]:
    """An answer whose probabilities may differ by what a batch of another size does to sums."""
    numbers = {name: pytest.approx(entry[name], abs=2e-6) for name in ("confidence",) if name in entry}
    ranked = {one["label"]: pytest.approx(one["probability"], abs=2e-6) for one in entry.get("probabilities", ())}
    return entry | numbers | {"probabilities": ranked}


# ---- three ways in ----


def test_all_ways_in_give_the_same_answer(client: FlaskClient) -> None:
    pictures = bundles.mixed_pictures()
    by_form = upload(client, *pictures).get_json()
    entries = [encoded(content, name=name) for name, content in pictures]
    by_json = client.post("/api/v1/predict", json={"files": entries}).get_json()
    assert by_json == by_form
    for place, (_, content) in enumerate(pictures):
        kind = "image/jpeg" if place % 2 else "application/octet-stream"
        single = client.post("/api/v1/predict", data=content, content_type=kind).get_json()
        [entry] = single["predictions"]
        assert comparable(entry) == comparable(by_form["predictions"][place] | {"name": "picture"})


def test_json_names_may_be_left_out_and_are_cleaned(client: FlaskClient) -> None:
    entries = [encoded(RED), encoded(RED, name="../../etc/passwd")]
    answers = client.post("/api/v1/predict?top=1", json={"files": entries}).get_json()["predictions"]
    assert [entry["name"] for entry in answers] == ["picture", "passwd"]
    assert [len(entry["probabilities"]) for entry in answers] == [1, 1]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 9_000, "nested too deeply"),
        (b'{"files": [{"content": NaN}]}', "NaN is no number of JSON"),
        (b'{"files": [{"content": ' + b"9" * 5000 + b"}]}", "not JSON"),
        (b"null", "a list files"),
        (b"[]", "a list files"),
        (b'{"files": {}}', "a list files"),
        (b'{"files": [], "more": 1}', "nothing else"),
        (b'{"files": []}', "no picture"),
        (b'{"files": [1]}', "files[0] must be an object"),
        (b'{"files": [{"content": "QQ=="}, {}]}', "files[1] must be an object"),
        (b'{"files": [{"content": 5}]}', "both of them text"),
        (b'{"files": [{"content": "QQ==", "name": null}]}', "both of them text"),
        (b'{"files": [{"content": "QQ==", "path": "/etc"}]}', "files[0] must be"),
        (b'{"files": [{"content": "!"}]}', "files[0].content is not base64"),
        ('{"files": [{"content": "é"}]}'.encode(), "files[0].content is not base64"),
    ],
)
def test_json_that_is_wrong_says_where(client: FlaskClient, body: bytes, said: str) -> None:
    assert_problem(client.post("/api/v1/predict", data=body, content_type=JSON), 400, said)


def test_json_is_held_to_the_number_of_pictures(engine: Engine) -> None:
    client = create_app(engine, ServeConfig(max_files=2)).test_client()
    assert client.post("/api/v1/predict", json={"files": [encoded(RED)] * 2}).status_code == 200
    assert_problem(client.post("/api/v1/predict", json={"files": [encoded(RED)] * 3}), 413, "3 pictures")


# ---- ids and the log ----


@pytest.mark.parametrize("url", ["/", "/api/v1/model", "/healthz", "/missing", "/static/darkroom.css", "/v1/models/x"])
def test_every_answer_has_an_id(client: FlaskClient, url: str) -> None:
    with client.get(url) as first, client.get(url) as second:
        ids = [response.headers["X-Request-Id"] for response in (first, second)]
    assert ids[0] != ids[1]
    assert all(re.fullmatch("[0-9a-f]{16}", found) for found in ids)


@pytest.mark.parametrize(
    ("given", "kept"),
    [("a1.B_2~c-3", True), ("x" * 64, True), ("x" * 65, False), ("a b", False), ("<script>", False), ("", False)],
)
def test_a_sane_id_is_kept(client: FlaskClient, given: str, kept: bool) -> None:
    answered = client.get("/healthz", headers={"X-Request-Id": given}).headers["X-Request-Id"]
    assert (answered == given) == kept


def test_the_log_tells_of_each_request_and_nothing_of_the_pictures(
    client: FlaskClient, lines: list[dict[str, Any]]
) -> None:
    upload(client, ("my secret.png", RED), ("b.png", b"broken"), headers={"X-Request-Id": "trace-1"})
    client.get("/missing?token=hidden")
    first, second = lines
    assert first["id"] == "trace-1"
    assert (first["method"], first["path"], first["status"]) == ("POST", "/api/v1/predict", 200)
    assert (first["client"], first["pictures"], first["key"]) == ("127.0.0.1", 2, None)
    assert first["bytes_in"] > len(RED)
    assert first["bytes_out"] > 0
    assert 0 < first["seconds"] < 60
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", first["time"])
    assert (second["path"], second["status"], second["pictures"]) == ("/missing", 404, 0)
    told = json.dumps(lines)
    assert "secret" not in told
    assert "hidden" not in told
    assert "b.png" not in told


def test_without_somebody_who_wants_it_there_is_no_log(client: FlaskClient, capfd: pytest.CaptureFixture[str]) -> None:
    client.get("/healthz")
    assert capfd.readouterr() == ("", "")


# ---- the description ----


@pytest.fixture
def document(client: FlaskClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/api/v1/openapi.json").get_json()
    return found


def shape_of(document: dict[str, Any], path: str, method: str, response: TestResponse) -> dict[str, Any]:
    """The schema that the document has for an answer."""
    answers = document["paths"][path][method]["responses"]
    assert str(response.status_code) in answers, f"{method} {path} does not say that it gives {response.status_code}"
    return dict(answers[str(response.status_code)]["content"][response.mimetype]["schema"])


def test_the_document_has_the_form_of_openapi(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert document["info"]["title"] == "darkroom: colours"
    names = [item["operationId"] for path in document["paths"].values() for item in path.values()]
    assert len(names) == len(set(names)) == len(ALL)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"].endswith((".", ")"))
            declared = {item["name"] for item in operation.get("parameters", ()) if item["in"] == "path"}
            assert declared == set(re.findall(r"{(\w+)}", path))
            assert "200" in operation["responses"]
            assert "security" not in operation
    for reference in re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)):
        assert resolve({"$ref": reference}, document)
    used = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))
    assert used == set(document["components"]["schemas"])


def test_the_document_tells_what_a_refusal_carries_and_what_is_known(document: dict[str, Any]) -> None:
    predict = document["paths"]["/api/v1/predict"]["post"]
    assert "Retry-After" in predict["responses"]["503"]["headers"]
    assert resolve(predict["responses"]["503"]["headers"]["Retry-After"], document)["schema"]["type"] == "integer"
    [label] = document["paths"]["/api/v1/explain"]["post"]["parameters"]
    assert label["schema"]["enum"] == list(bundles.CLASSES)
    names = document["paths"]["/v1/models/{name}/versions/{version}"]["get"]["parameters"]
    assert [parameter["schema"]["enum"] for parameter in names] == [["colours"], ["1"]]


@pytest.mark.parametrize("field", ["files", "file"])
def test_both_fields_of_a_form_are_described_and_taken(
    client: FlaskClient, document: dict[str, Any], field: str
) -> None:
    assert client.post("/api/v1/predict", data={field: (io.BytesIO(RED), "a"), "more": "x"}).status_code == 200
    form = document["components"]["schemas"]["UploadForm"]
    assert faults({field: ["…"], "more": "x"}, form, document) == []
    assert faults({"more": "x"}, form, document) != []


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text"])
def test_both_formats_of_the_metrics_are_described(client: FlaskClient, document: dict[str, Any], accept: str) -> None:
    response = client.get("/metrics", headers={"Accept": accept})
    assert shape_of(document, "/metrics", "get", response)["type"] == "string"


def test_routes_and_document_are_the_same(app: Flask, document: dict[str, Any]) -> None:
    pages = {"/", "/model", "/samples/<int:place>", "/static/<path:filename>"}
    routed = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        if rule.rule not in pages
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert routed == {(path, method) for path, operations in document["paths"].items() for method in operations}
    assert {address_of(endpoint) for endpoint in ALL} == set(document["paths"])


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/api/v1/model", {}),
        ("/healthz", {}),
        ("/readyz", {}),
        ("/api/v1/openapi.json", {}),
        ("/api/v1/", {}),
        ("/metrics", {}),
    ],
)
def test_what_is_got_is_as_described(
    client: FlaskClient, document: dict[str, Any], path: str, options: dict[str, Any]
) -> None:
    response = client.get(path, **options)
    schema = shape_of(document, path, "get", response)
    content = response.get_json() if response.mimetype == JSON else response.text
    assert faults(content, schema, document) == []


@pytest.mark.parametrize("novelty", [{}, NOVELTY])
def test_predictions_are_as_described(novelty: dict[str, Any]) -> None:
    client = create_app(FormulaEngine(novelty=novelty), ServeConfig()).test_client()
    document = client.get("/api/v1/openapi.json").get_json()
    response = upload(client, *bundles.mixed_pictures())
    schema = shape_of(document, "/api/v1/predict", "post", response)
    assert faults(response.get_json(), schema, document) == []
    entries = [entry for entry in response.get_json()["predictions"] if "error" not in entry]
    assert all(("novelty" in entry) == bool(novelty) for entry in entries)
    assert faults({**response.get_json(), "more": 1}, schema, document) != [], "else this proves nothing"


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"json": {}}, 400),
        ({"data": b"x", "content_type": "text/plain"}, 415),
        ({"data": {"files": [(io.BytesIO(RED), "a")] * 65}}, 413),
    ],
)
def test_refusals_are_as_described(
    client: FlaskClient, document: dict[str, Any], options: dict[str, Any], status: int
) -> None:
    response = client.post("/api/v1/predict", **options)
    assert_problem(response, status)
    schema = shape_of(document, "/api/v1/predict", "post", response)
    assert faults(response.get_json(force=True), schema, document) == []


def test_the_page_for_programs_names_everything(client: FlaskClient, document: dict[str, Any]) -> None:
    page = client.get("/api/v1/")
    assert page.status_code == 200
    for path in document["paths"]:
        assert path.replace("<", "&lt;") in page.text
    for name in document["components"]["schemas"]:
        assert f'id="{name}"' in page.text
    assert "style=" not in page.text
    for address in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert address.startswith("/")
        with client.get(address) as response:
            assert response.status_code == 200, address


# ---- what a bundle may know beside its classes ----


def test_novelty_is_told_where_the_bundle_knows_it() -> None:
    client = create_app(FormulaEngine(novelty=NOVELTY), ServeConfig()).test_client()
    red, grey = upload(client, ("a", RED), ("b", bundles.encoded((100, 100, 100)))).get_json()["predictions"]
    assert red["novelty"]["unlike"] is False
    assert grey["novelty"]["unlike"] is True
    assert red["novelty"]["score"] < NOVELTY["threshold"] < grey["novelty"]["score"]
    page = upload(client, ("b", bundles.encoded((100, 100, 100))), url="/").text
    assert "looks unlike those" in page
    assert "said of 5 % too" in page
    assert client.get("/api/v1/model").get_json()["novelty"] == NOVELTY


def half(left: tuple[int, int, int], right: tuple[int, int, int]) -> bytes:
    """A picture of two colours."""
    picture = Image.new("RGB", (48, 32), left)
    picture.paste(right, (24, 0, 48, 32))
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def explaining() -> FlaskClient:
    """A client of a server that takes small files only."""
    return create_app(FormulaEngine(), ServeConfig(max_file_megabytes=0.1)).test_client()


def test_where_a_class_is_seen_is_told(explaining: FlaskClient) -> None:
    picture = half((250, 0, 0), (0, 0, 250))
    for label, place in (("red", 0), ("blue", -1)):
        response = explaining.post(f"/api/v1/explain?label={label}", data=picture, content_type="image/png")
        content = response.get_json()
        document = explaining.get("/api/v1/openapi.json").get_json()
        assert faults(content, shape_of(document, "/api/v1/explain", "post", response), document) == []
        assert content["label"] == label
        assert content["box"] == [0, 0, 1, 1]
        rows = content["weights"]
        assert (len(rows), len(rows[0])) == (8, 8)
        assert all(row[place] == 1 and row[-1 - place] == 0 for row in rows)
    best = explaining.post("/api/v1/explain", data=RED, content_type="image/png").get_json()
    assert best["label"] == "red"


@pytest.mark.parametrize(
    ("changes", "box"),
    [
        ({}, [0, 0.166667, 1, 0.833333]),  # the file holds it lying: upright it is 32 pixels wide and 48 high
        ({"crop_fraction": 0.875}, [0.0625, 0.208333, 0.9375, 0.791667]),
        ({"resize": "stretch"}, [0, 0, 1, 1]),
        ({"resize": "pad"}, [-0.181818, 0, 1.272727, 1]),  # 11 of 16 pixels, the odd bar right
    ],
)
def test_where_the_explained_part_lies_is_told(changes: dict[str, Any], box: list[float]) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    stream = io.BytesIO()
    Image.new("RGB", (48, 32), (240, 10, 10)).save(stream, "JPEG", exif=exif)
    client = create_app(FormulaEngine(preprocessing=Preprocessing(16, 16, **changes)), ServeConfig()).test_client()
    found = client.post("/api/v1/explain", data=stream.getvalue(), content_type="image/jpeg").get_json()
    assert found["box"] == box


def test_explaining_refuses_what_it_must(explaining: FlaskClient) -> None:
    post = explaining.post
    assert_problem(post("/api/v1/explain?label=cat", data=RED, content_type="image/png"), 400, "knows no class 'cat'")
    assert_problem(post("/api/v1/explain", data=b"x", content_type="image/png"), 422, "not a picture")
    assert_problem(post("/api/v1/explain", data=bytes(100_001), content_type="image/png"), 422, "too large")
    assert_problem(upload(explaining, ("a", RED), ("b", RED), url="/api/v1/explain"), 413, "one at a time")
