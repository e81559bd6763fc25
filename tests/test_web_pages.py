"""The pages beside the first one, the answers as files, and the sample pictures, through Flask's client."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import bundles
from darkroom.bundle import CARD_FILE
from darkroom.config import ServeConfig
from darkroom.engines.base import Engine
from darkroom.engines.prediction import Failure, Prediction
from darkroom.errors import UsageError
from darkroom.web import create_app
from darkroom.web.page import rendered
from darkroom.web.papers import MOST_SAMPLES, Papers, Sample, read_samples
from darkroom.web.results import to_csv
from finished import Finished
from serving import RED, FormulaEngine, assert_problem, fetch, serving, upload

CARD = """---
license: mit
tags:
- hidden
---

# The colours

| class | F1 |
| --- | --- |
| red | 90 % |

Never *cross* `<b>`. <script>alert(1)</script> [here](javascript:alert(1)) [there](https://example.org/x)
"""


@pytest.fixture
def client(engine: Engine) -> FlaskClient:
    papers = Papers(CARD, (Sample(RED, "image/png"), Sample(bundles.encoded((10, 10, 240), "BMP"), "image/bmp")))
    return create_app(engine, ServeConfig(), papers).test_client()


# ---- the model ----


def test_the_card_is_a_page(client: FlaskClient) -> None:
    response = client.get("/model")
    assert response.status_code == 200
    page = response.text
    assert "<h1>The colours</h1>" in page
    assert "<td>90 %</td>" in page
    assert "hidden" not in page
    assert 'href="https://example.org/x"' in page
    assert page.count("<h1") == 1


def test_nothing_of_a_card_is_executed() -> None:
    page = rendered(CARD)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert 'href="javascript' not in page


def test_a_card_may_begin_without_metadata() -> None:
    assert rendered("# A\n\n---\n\nb") == "<h1>A</h1>\n<hr />\n<p>b</p>\n"


def test_a_bundle_without_a_card_speaks_for_itself(engine: Engine) -> None:
    page = create_app(engine, ServeConfig()).test_client().get("/model").text
    assert "without a model card" in page
    assert "mean colour" in page
    for name in bundles.CLASSES:
        assert f"<li>{name}</li>" in page


def test_the_card_of_a_run_is_shown(finished_run: Finished) -> None:
    papers = Papers.of(finished_run.run.bundle)
    assert papers.card == (finished_run.run.bundle / CARD_FILE).read_text()
    page = create_app(FormulaEngine(), ServeConfig(), papers).test_client().get("/model").text
    for heading in ("Data", "Results", "Weak spots", "Limits"):
        assert f"<h2>{heading}</h2>" in page
    assert "style=" not in page


# ---- answers as files ----


def form(name: str, **more: Any) -> dict[str, Any]:
    """A form with one picture."""
    return {"files": (io.BytesIO(RED), name), **more}


def test_answers_as_csv(client: FlaskClient) -> None:
    files = [(io.BytesIO(content), name) for name, content in bundles.mixed_pictures()]
    response = client.post("/", data={"files": files, "as": "csv"})
    assert response.status_code == 200
    assert response.content_type == "text/csv; charset=utf-8"
    assert response.headers["Content-Disposition"] == 'attachment; filename="answers.csv"'
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert [row["name"] for row in rows] == [name for name, _ in bundles.mixed_pictures()]
    assert sum(bool(row["error"]) for row in rows) == 3
    for row in rows:
        if not row["error"]:
            shares = {name: float(row[name]) for name in bundles.CLASSES}
            assert sum(shares.values()) == pytest.approx(1, abs=1e-4)
            assert row["label"] == max(shares, key=lambda name: shares[name])
            assert row["sure"] == ("yes" if float(row["confidence"]) >= 0.6 else "no")


def test_the_page_about_the_model_says_how_often_ordinary_pictures_are_called_unlike() -> None:
    for novelty, said in (({"score": "energy", "threshold": -3.0, "false_alarms": 0.05}, True), ({}, False)):
        text = create_app(FormulaEngine(novelty=novelty), ServeConfig()).test_client().get("/model").text
        assert ("this is said of 5 %" in text) == said


def test_the_csv_says_what_is_unlike_where_the_model_knows() -> None:
    novelty = {"score": "energy", "threshold": -3.0, "false_alarms": 0.05}
    for known, said in ((novelty, ["no", "yes", ""]), ({}, ["", "", ""])):
        client = create_app(FormulaEngine(novelty=known), ServeConfig()).test_client()
        contents = [RED, bundles.encoded((100, 100, 100)), b"broken"]
        files = [(io.BytesIO(content), "a") for content in contents]
        rows = csv.DictReader(io.StringIO(client.post("/", data={"files": files, "as": "csv"}).text))
        assert [row["unlike"] for row in rows] == said


def test_answers_as_json(client: FlaskClient) -> None:
    response = client.post("/", data=form("a.png", **{"as": "json"}))
    assert response.content_type == "application/json"
    [entry] = json.loads(response.data)
    assert entry == client.post("/api/v1/predict", data=form("a.png")).get_json()["predictions"][0]


@pytest.mark.parametrize("kind", ["", "page", "xml"])
def test_other_kinds_are_the_page(client: FlaskClient, kind: str) -> None:
    response = client.post("/", data=form("a.png", **{"as": kind}))
    assert response.content_type.startswith("text/html")
    assert 'data-state="answered"' in response.text


@pytest.mark.parametrize("name", ["=1+1", "+x", "-x", "@x", "\tx", "\rx"])
def test_spreadsheets_compute_nothing(name: str) -> None:
    answers = [Failure(name, "broken"), Prediction(name, name, 0.5, False, ((name, 0.5),))]
    rows = list(csv.reader(io.StringIO(to_csv(answers, [name]), newline="")))
    assert [row[0] for row in rows] == ["name", f"'{name}", f"'{name}"]
    assert rows[0][-1] == f"'{name}"
    assert rows[2][1] == f"'{name}"


# ---- samples ----


def test_samples_are_shown_and_can_be_tried(client: FlaskClient) -> None:
    page = client.get("/").text
    for place in (1, 2):
        assert f'src="/samples/{place}"' in page
    first, second = client.get("/samples/1"), client.get("/samples/2")
    assert (first.data, first.content_type) == (RED, "image/png")
    assert second.content_type == "image/bmp"
    response = client.post("/", data={"sample": "2"}, content_type="multipart/form-data")
    assert response.status_code == 200
    assert "sample 2" in response.text
    assert '<p class="verdict">blue</p>' in response.text


@pytest.mark.parametrize("place", ["0", "3", "x", "", "-1", "1.0", "²"])
def test_other_samples_are_refused(client: FlaskClient, place: str) -> None:
    response = client.post("/", data={"sample": place}, content_type="multipart/form-data")
    assert response.status_code == 400
    assert "no such sample" in response.text
    if place:
        assert_problem(client.get(f"/samples/{place}"), 404)


def test_without_samples_there_is_no_word_of_them(engine: Engine) -> None:
    client = create_app(engine, ServeConfig()).test_client()
    assert "samples" not in client.get("/").text
    assert_problem(client.get("/samples/1"), 404)


def test_samples_are_what_browsers_show(tmp_path: Path) -> None:
    for place in range(MOST_SAMPLES + 3):
        (tmp_path / f"{place:02}.png").write_bytes(RED)
    (tmp_path / "00-broken.png").write_bytes(b"x")
    (tmp_path / "00-photo.tif").write_bytes(bundles.encoded((1, 2, 3), "TIFF"))
    (tmp_path / "00-page.html").write_bytes(b"<script>alert(1)</script>")
    (tmp_path / "00-large.png").write_bytes(RED + bytes(2_000_000))
    (tmp_path / "00-folder").mkdir()
    (tmp_path / "really-a.jpg").write_bytes(bundles.encoded((1, 2, 3), "GIF"))
    found = read_samples(tmp_path)
    assert len(found) == MOST_SAMPLES
    assert {sample.media_type for sample in found} == {"image/png"}
    for path in tmp_path.glob("0*.png"):
        path.unlink()
    assert [sample.media_type for sample in read_samples(tmp_path)][-1] == "image/gif"


def test_a_folder_that_is_missing_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--samples .* is no folder"):
        read_samples(tmp_path / "nowhere")


def test_a_run_offers_its_samples_and_a_bundle_none(finished_run: Finished) -> None:
    from darkroom.workflow import bundle_of, samples_of

    bundle = finished_run.run.bundle
    assert samples_of(finished_run.run.folder, bundle) == finished_run.run.samples
    assert samples_of(bundle, bundle) is None
    drawn = samples_of("cifar10", bundle_of("cifar10"))
    assert drawn is not None
    assert {path.suffix for path in drawn.iterdir()} == {".png"}
    assert len(Papers.of(finished_run.run.bundle, finished_run.run.samples).samples) == 10


def test_answers_to_the_plain_form_have_a_heading_that_the_form_leads_to(client: FlaskClient) -> None:
    assert 'action="/#answers"' in client.get("/").text
    files = [(io.BytesIO(content), name) for name, content in bundles.mixed_pictures()]
    page = client.post("/", data={"files": files}).text
    assert page.index('id="answers"') < page.index("<h2>Answers</h2>") < page.index('class="card')
    assert re.search(r'role="status">\d+ answered, \d+ not sure, 3 without an answer</p>', page)


def test_a_form_that_is_too_large_is_told_on_the_page(engine: Engine) -> None:
    client = create_app(engine, ServeConfig(max_request_megabytes=0.01)).test_client()
    response = upload(client, ("a.png", bytes(20_000)), url="/")
    assert response.status_code == 413
    assert response.content_type.startswith("text/html")
    assert "10 kB in all" in response.text


# ---- errors in a browser ----

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"}


class BrokenEngine(FormulaEngine):
    """Answers nothing, through a mistake of ours or the engine's."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def run(self, pixels: Any) -> Any:
        """Fail."""
        raise self._error


def assert_page(response: TestResponse, status: int, words: str) -> None:
    """Hold an error to being a page like the others."""
    assert response.status_code == status
    assert response.content_type == "text/html; charset=utf-8"
    assert words in response.text
    assert 'href="/static/darkroom.css"' in response.text
    assert response.headers["X-Request-Id"]
    assert "script-src 'self'" in response.headers["Content-Security-Policy"]


def test_what_is_not_there_is_told_on_a_page(client: FlaskClient) -> None:
    for address in ("/nowhere", "/samples/9", "/static/nowhere.css"):
        assert_page(client.get(address, headers=BROWSER), 404, "There is no such page")
    assert_page(client.get("/<b>", headers=BROWSER), 404, "There is no such page")


@pytest.mark.parametrize("address", ["/api/v1/nowhere", "/api/nowhere"])
def test_programs_get_no_page(client: FlaskClient, address: str) -> None:
    assert_problem(client.get(address, headers=BROWSER), 404)
    assert client.get("/v1/models/other", headers=BROWSER).content_type == "application/json"


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/html;q=0", "garbage;;q=x,", ""])
def test_who_wants_no_page_gets_none(client: FlaskClient, accept: str) -> None:
    assert_problem(client.get("/nowhere", headers={"Accept": accept}), 404)


def test_whoever_asks_too_often_is_told_on_a_page(engine: Engine) -> None:
    client = create_app(engine, ServeConfig(max_requests_per_minute=1)).test_client()
    assert client.get("/", headers=BROWSER).status_code == 200
    response = client.get("/", headers=BROWSER)
    assert_page(response, 429, "come back in")
    assert int(response.headers["Retry-After"]) >= 1


def test_a_mistake_of_ours_is_told_on_a_page() -> None:
    client = create_app(BrokenEngine(ValueError("secret")), ServeConfig()).test_client()
    response = client.post("/", data=form("a.png"), headers=BROWSER)
    assert_page(response, 500, "The server made a mistake")
    assert "secret" not in response.text


def test_what_never_reaches_the_application_is_told_on_a_page(engine: Engine) -> None:
    with serving(engine, max_request_megabytes=0.01) as server:
        for headers, kind in ((BROWSER, "text/html; charset=utf-8"), ({}, "application/problem+json")):
            response, body = fetch(server, "POST", "/", body=bytes(20_000), headers=headers)
            assert response.status == 413
            assert response.headers["Content-Type"] == kind
            assert "10 kB in all" in body.decode()
            assert "script-src 'self'" in response.headers["Content-Security-Policy"]
