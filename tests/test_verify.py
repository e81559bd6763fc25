"""`darkroom verify` finds every tampering with a run, says which check found it, and changes nothing itself."""

import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from darkroom.bundle import Bundle
from darkroom.cli import main
from darkroom.comparison.folder import Comparison
from darkroom.config import ServeConfig
from darkroom.data.manifest import Manifest
from darkroom.engines.onnx_runtime import OnnxRuntimeEngine
from darkroom.files import sha256_of
from darkroom.report.write import write_report
from darkroom.runs import Run
from darkroom.verify.checks import Check, check
from darkroom.verify.server import server
from darkroom.web import create_app
from finished import CLASSES, Finished
from pictures import encoded, noisy
from reported import ABLATION, Reported, compared, settle_comparison, tell_again
from tampering import (
    FILES,
    TAMPERINGS,
    UNTRACED,
    edited,
    opened_split_denied,
    other_graph,
    predictions_of_test_removed,
)
from tampering_reports import OF_REPORTS
from verifying import remembered

OF_SPLITS = tuple(
    f"{split}: {what}" for split in ("validation", "test") for what in ("pictures", "labels", "predictions", "metrics")
)
OF_RUNS = ("manifest", "history", "bundle", "what the bundle says", "model card", "samples", "what was measured")
OF_REPORTED = ("versions", "files", "numbers", "made again")
Answer = tuple[int, list[str], list[str]]
"""Exit code, the checks that failed, and all lines."""
Verify = Callable[..., Answer]


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Resampling and typesetting take longest."""
    with remembered():
        yield


@pytest.fixture
def copied(reported_run: Reported, tmp_path: Path) -> Finished:
    """A reported run to tamper with, and data of its own."""
    finished = reported_run.copy(tmp_path / "run")
    data = tmp_path / "data"
    shutil.copytree(finished.data, data)
    config = finished.run.read_config()
    config["data"]["root"] = str(data)
    finished.run.write_config(config)
    with edited(finished.run.told) as told:  # as a report has it that was made here
        told["sha256"]["config.json"] = sha256_of(finished.run.config)
    return replace(finished, data=data)


@pytest.fixture
def verify(reported_run: Reported, capsys: pytest.CaptureFixture[str]) -> Verify:
    """The command."""

    def ask(folder: Path, *options: object) -> Answer:
        capsys.readouterr()
        code: Any = 0
        try:
            main(["verify", str(folder), "--cache", str(reported_run.config.cache), *map(str, options)])
        except SystemExit as leaving:
            code = leaving.code
        lines = capsys.readouterr().out.splitlines()
        failed = [
            found[1]
            for line in lines
            if (found := re.match(r"FAILED  ((?:(?:train|validation|test|unused): )?[^:]+): ", line))
        ]
        assert len(failed) == sum(line.startswith("FAILED") for line in lines)
        return code or 0, failed, lines

    return ask


def name_of(value: object) -> str:
    """What a test with that parameter is called."""
    return getattr(value, "__name__", "")


def contents(*folders: Path) -> dict[Path, tuple[int, bytes]]:
    """Every file and folder with its time and what it holds."""
    paths = sorted(path for folder in folders for path in (folder, *folder.rglob("*")))
    return {path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in paths}


def test_a_reported_run_holds_in_every_check_and_is_left_as_it_is(verify: Verify, copied: Finished) -> None:
    before = contents(copied.run.folder, copied.data)
    code, failed, lines = verify(copied.run.folder)
    assert (code, failed) == (0, []), lines
    of_report = ("insights", *(f"report, {name}" for name in OF_REPORTED), "report.pdf", "slides.pptx")
    for name in (*OF_RUNS, "train: pictures", *OF_SPLITS, "temperature and threshold", *of_report):
        assert any(line.startswith(f"ok      {name}: ") for line in lines), name
    assert any("all 27 have the hash" in line for line in lines)
    assert contents(copied.run.folder, copied.data) == before


def test_a_run_without_a_report_can_be_verified(verify: Verify, finished_run: Finished) -> None:
    code, failed, lines = verify(finished_run.run.folder)
    assert (code, failed) == (0, []), lines
    assert not any(line.startswith("ok      report") for line in lines)


@pytest.mark.parametrize(
    ("tamper", "finds"), [*TAMPERINGS, *OF_REPORTS], ids=lambda value: getattr(value, "__name__", "")
)
def test_tampering_is_found(verify: Verify, copied: Finished, tamper: Callable[[Run], None], finds: set[str]) -> None:
    tamper(copied.run)
    code, failed, lines = verify(copied.run.folder)
    assert code == 2
    assert failed
    assert finds <= set(failed), lines
    if tamper is other_graph:
        assert "bundle" not in failed, "which is whole, so that only its answers tell"


@pytest.mark.parametrize(("tamper", "finds"), UNTRACED, ids=name_of)
def test_what_no_number_follows_from_is_found_without_a_report(
    verify: Verify, finished_run: Finished, tmp_path: Path, tamper: Callable[[Run], None], finds: set[str]
) -> None:
    run = finished_run.copy(tmp_path / "run").run
    tamper(run)
    code, failed, lines = verify(run.folder)
    assert code == 2
    assert finds <= set(failed), lines


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found(verify: Verify, copied: Finished, name: str) -> None:
    (copied.run.folder / name).unlink()
    code, failed, _ = verify(copied.run.folder)
    assert code == 2
    assert failed


def picture(finished: Finished, split: str, place: int) -> Path:
    """A picture of that split in the data folder."""
    manifest = Manifest.read(finished.run.manifest, root=finished.data, classes=CLASSES, fingerprint="")
    return manifest.path(int(manifest.indices(split)[place]))


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("replaced", [True, False])
def test_a_replaced_or_missing_picture_is_found(verify: Verify, copied: Finished, split: str, replaced: bool) -> None:
    path = picture(copied, split, 5)
    path.unlink()
    if replaced:
        path.write_bytes(encoded(noisy(12, 12, seed=99)))
    code, failed, lines = verify(copied.run.folder)
    assert code == 2
    assert failed
    assert any(path.name in line for line in lines if line.startswith("FAILED"))


def with_pictures_unused_and_test_unopened(run: Run) -> None:
    """As if a part of the training pictures had been left aside and nobody had looked at test, without a report."""
    config, manifest = run.read_config(), Manifest.read(run.manifest, root=run.folder, classes=CLASSES, fingerprint="")
    aside = set(manifest.indices("train")[:20].tolist())
    rows = (replace(row, split="unused") if row.id in aside else row for row in manifest.rows)
    manifest = replace(manifest, rows=tuple(rows))
    manifest.write(run.manifest)
    config["data"] |= {"manifest_sha256": sha256_of(run.manifest), "counts": manifest.counts()}
    run.write_config(config)
    predictions_of_test_removed(run)
    run.write_metrics({**run.read_metrics(), "test_openings": 0})
    opened_split_denied(run)
    tell_again(run)
    for path in run.reported:
        path.unlink()


@pytest.mark.parametrize("split", ["test", "unused"])
def test_pictures_are_hashed_of_splits_that_are_not_judged(verify: Verify, copied: Finished, split: str) -> None:
    with_pictures_unused_and_test_unopened(copied.run)
    code, failed, lines = verify(copied.run.folder)
    assert (code, failed) == (0, []), lines
    assert any(line.startswith(f"ok      {split}: pictures: ") for line in lines)
    assert not any("test: predictions" in line for line in lines)
    picture(copied, split, 5).write_bytes(encoded(noisy(12, 12, seed=99)))
    assert verify(copied.run.folder)[:2] == (2, [f"{split}: pictures"])


def test_test_may_be_opened_again_after_the_export(verify: Verify, finished_run: Finished, tmp_path: Path) -> None:
    run = finished_run.copy(tmp_path / "run").run
    run.write_metrics({**run.read_metrics(), "test_openings": 3})
    assert verify(run.folder)[:2] == (0, [])


def test_a_package_that_is_missing_is_no_failed_check(
    verify: Verify, reported_run: Reported, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'typst'", name="typst")

    monkeypatch.setattr("darkroom.verify.report.rendered", missing)
    assert verify(reported_run.run.folder, "--sample", 1)[:2] == (2, [])


def test_a_sample_is_enough_where_it_is_asked_for(verify: Verify, copied: Finished) -> None:
    code, failed, lines = verify(copied.run.folder, "--sample", 5)
    assert (code, failed) == (0, [])
    assert sum("5 of 27 have the hash" in line for line in lines) == 2
    assert sum("5 of 27 get the stored answers again" in line for line in lines) == 2
    assert verify(copied.run.folder, "--sample", 5000)[0] == 0
    picture(copied, "test", 13).write_bytes(b"")
    assert verify(copied.run.folder, "--sample", 2)[:2] == (0, []), "the first and the last"
    assert "test: pictures" in verify(copied.run.folder)[1]
    assert verify(copied.run.folder, "--sample", 0) == (2, [], [])


def test_what_is_no_run_is_told(verify: Verify, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        assert verify(path) == (2, [], []), "no checks, of which all would fail"
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert verify(tmp_path)[0] == 2


@contextmanager
def serving(body: bytes, *, status: int = 200, http: bool = True) -> Iterator[str]:
    """The address of a server that gives this answer to everything, as a web server does or just as it is."""

    class Handler(BaseHTTPRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            head = f"HTTP/1.1 {status} said\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            self.wfile.write((head.encode() if http else b"") + body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_server_of_this_model_is_known(verify: Verify, reported_run: Reported) -> None:
    run = reported_run.run
    with OnnxRuntimeEngine.open(run.bundle, threads=1) as engine:
        body = create_app(engine, ServeConfig()).test_client().get("/api/v1/model").data
    with serving(body) as address:
        for given in (address, f"{address}/"):
            code, failed, lines = verify(run.folder, "--sample", 1, "--server", given)
            assert (code, failed) == (0, []), lines
            assert lines[-1].startswith("ok      server: ")


def test_another_server_fails_the_command(verify: Verify, reported_run: Reported) -> None:
    with serving(b'{"weights_sha256": "ab", "bundle_sha256": "ab"}') as address:
        code, failed, _ = verify(reported_run.run.folder, "--sample", 1, "--server", address)
    assert (code, failed) == (2, ["server"])


def asked(address: str, run: Run) -> Check:
    """The check of a server alone."""
    return check("server", lambda: server(address, run))


def test_these_weights_in_another_bundle_are_known(reported_run: Reported) -> None:
    info = Bundle.open(reported_run.run.bundle).info
    said = {"weights_sha256": info.provenance["weights_sha256"], "bundle_sha256": replace(info, threshold=0.1).sha256}
    with serving(json.dumps(said).encode()) as address:
        seen = asked(address, reported_run.run)
    assert not seen.passed
    assert "these weights in another bundle" in seen.detail


@pytest.mark.parametrize(
    ("body", "options"),
    [
        (b'{"weights_sha256": "' + b"0" * 64 + b'", "bundle_sha256": null}', {}),
        (b'{"weights_sha256": null, "bundle_sha256": null}', {}),
        (b'{"name": "something else"}', {}),
        (b"[1, 2, 3]", {}),
        (b"<html>", {}),
        (b"\xff\xfe\xfd", {}),
        (b"{}", {"status": 404}),
        (b"SSH-2.0-OpenSSH_9.6\r\n", {"http": False}),
    ],
)
def test_another_server_is_known_too(reported_run: Reported, body: bytes, options: Any) -> None:
    with serving(body, **options) as address:
        check = asked(address, reported_run.run)
    assert not check.passed
    assert address in check.detail


@pytest.mark.parametrize(
    "address", ["127.0.0.1:8000", "file:///etc/hostname", "http://127.0.0.1:x", "http://127.0.0.1:1"]
)
def test_an_address_without_a_server_is_told(reported_run: Reported, address: str) -> None:
    check = asked(address, reported_run.run)
    assert not check.passed
    assert address in check.detail
    assert "\n" not in check.detail


@pytest.fixture(scope="module")
def rivals(finished_run: Finished, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """A comparison with its report, and an ablation beside it."""
    folder = tmp_path_factory.mktemp("rivals")
    place = compared(finished_run, folder / "comparison")
    (folder / "ablation").mkdir()
    (folder / "ablation" / "ablation.json").write_text(
        json.dumps({**ABLATION, "fingerprint": finished_run.run.read_config()["data"]["fingerprint"]})
    )
    write_report(place.folder, ablation=folder / "ablation")
    return place


def test_a_comparison_is_verified_with_the_run_that_it_chose(verify: Verify, rivals: Comparison) -> None:
    code, failed, lines = verify(rivals.folder)
    assert (code, failed) == (0, []), lines
    assert lines[0].startswith("ok      comparison: 2 candidates")
    for name in ("cnn", "rival-frozen", "choice", "state and text"):
        assert any(line.startswith(f"ok      comparison, {name}: ") for line in lines), name
    assert lines[-1].startswith("ok      slides.pptx: ")
    place = Run(rivals.folder)
    assert json.loads(place.told.read_text())["files"] == {
        "ablation": "../ablation/ablation.json",
        "bundle": "runs/cnn/bundle/bundle.json",
        "comparison": "comparison.json",
        "config": "runs/cnn/config.json",
        "history": "runs/cnn/history.csv",
        "metrics": "runs/cnn/metrics.json",
    }
    assert not rivals.chosen.report.exists()
    assert all(path.is_file() for path in place.reported)


def test_a_comparison_that_is_overwritten_leaves_no_report(rivals: Comparison, tmp_path: Path) -> None:
    shutil.copytree(rivals.folder, tmp_path / "copy")
    mine = tmp_path / "copy" / "report-of-mine.pdf"
    mine.write_text("mine")
    Comparison(tmp_path / "copy").clear()
    assert [path for path in (tmp_path / "copy").rglob("*") if path.is_file()] == [mine]


CONTENT = "comparison/comparison.json"
OF_COMPARISONS = [
    (CONTENT, ("candidates", 1, "validation", "accuracy", "value"), {"comparison, rival-frozen"}),
    (CONTENT, ("candidates", 1, "parameters"), {"comparison, rival-frozen"}),
    (CONTENT, ("candidates", 0, "epochs"), {"comparison, cnn"}),
    (CONTENT, ("candidates", 0, "train_seconds"), {"comparison, cnn"}),
    (CONTENT, ("candidates", 0, "test_openings"), {"comparison, cnn"}),
    (CONTENT, ("candidates", 0, "serving", "milliseconds"), {"comparison, state and text", "report, numbers"}),
    (CONTENT, ("candidates", 0, "serving", "bytes"), {"comparison, state and text"}),
    (CONTENT, ("candidates", 1, "against_best", "p_value"), {"comparison, choice"}),
    (CONTENT, ("choice", "margin"), {"comparison, choice"}),
    (CONTENT, ("seed",), {"comparison, state and text"}),
    (CONTENT, ("data", "leaks"), {"comparison, state and text"}),
    (CONTENT, ("requested", "minutes"), {"comparison, state and text"}),
    ("comparison/runs/rival-frozen/metrics.json", ("validation", "accuracy", "value"), {"comparison, rival-frozen"}),
    ("comparison/runs/rival-frozen/metrics.json", ("threshold_coverage",), {"comparison, rival-frozen"}),
    ("comparison/runs/rival-frozen/config.json", ("training", "result", "steps"), {"comparison, rival-frozen"}),
    ("comparison/runs/cnn/metrics.json", ("test", "accuracy", "value"), {"comparison, cnn", "test: metrics"}),
    ("ablation/ablation.json", ("effects", 1, "mean"), {"report, files", "report, numbers"}),
]


@pytest.fixture
def rivals_copied(rivals: Comparison, tmp_path: Path) -> Path:
    """The comparison and its ablation, to be changed."""
    shutil.copytree(rivals.folder.parent, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.parametrize(("name", "path", "finds"), OF_COMPARISONS)
def test_a_comparison_that_was_changed_is_found(
    verify: Verify, rivals_copied: Path, name: str, path: tuple[Any, ...], finds: set[str]
) -> None:
    with edited(rivals_copied / name) as content:
        for part in path[:-1]:
            content = content[part]
        content[path[-1]] += 0.01 if isinstance(content[path[-1]], float) else 1
    code, failed, lines = verify(rivals_copied / "comparison", "--sample", 1)
    assert code == 2
    assert finds <= set(failed), lines


def another_is_chosen(place: Comparison) -> None:
    with edited(place.content) as content:
        content["choice"]["chosen"] = "rival-frozen"
        for row in content["candidates"]:
            row["chosen"] = not row["chosen"]


def another_reason_is_given(place: Comparison) -> None:
    with edited(place.content) as content:
        content["candidates"][0]["reason"] = "the most beautiful"


def another_rule_is_given(place: Comparison) -> None:
    with edited(place.content) as content:
        content["choice"]["rule"] = "the most beautiful"


def a_candidate_is_left_out(place: Comparison) -> None:
    """With the words and figures that follow from it made to fit, and a reason."""
    content = place.read()
    rows = [row for row in content["candidates"] if row["chosen"]]
    settle_comparison(place, rows, place.chosen.read_config())
    with edited(place.state) as kept:
        kept["serving"]["rival-frozen"] = content["candidates"][1]["serving"]
    with edited(place.content) as changed:
        changed["left_out"] = ["left out: rival-frozen, which failed: out of memory"]


def a_candidate_is_hidden(place: Comparison) -> None:
    shutil.rmtree(place.run("rival-frozen").folder)


def text_is_rewritten(place: Comparison) -> None:
    place.text.write_text(place.text.read_text().replace("cnn", "CNN"))


def predictions_of_a_rival_are_better(place: Comparison) -> None:
    run = place.run("rival-frozen")
    stored = run.read_predictions("validation")
    run.write_predictions("validation", replace(stored, logits=8 * np.eye(3, dtype=np.float32)[stored.labels]))


def a_rival_had_another_split(place: Comparison) -> None:
    run = place.run("rival-frozen")
    run.manifest.write_text(run.manifest.read_text().replace(",test,", ",train,", 1))


@pytest.mark.parametrize(
    ("tamper", "finds"),
    [
        (another_is_chosen, {"comparison, choice", "comparison, state and text"}),
        (another_reason_is_given, {"comparison, choice"}),
        (another_rule_is_given, {"comparison, choice"}),
        (a_candidate_is_left_out, {"comparison"}),
        (a_candidate_is_hidden, {"comparison", "comparison, rival-frozen"}),
        (text_is_rewritten, {"comparison, state and text"}),
        (predictions_of_a_rival_are_better, {"comparison, rival-frozen", "comparison, choice"}),
        (a_rival_had_another_split, {"comparison, rival-frozen"}),
    ],
)
def test_a_comparison_that_was_bent_is_found(
    verify: Verify, rivals_copied: Path, tamper: Callable[[Comparison], None], finds: set[str]
) -> None:
    tamper(Comparison(rivals_copied / "comparison"))
    code, failed, lines = verify(rivals_copied / "comparison", "--sample", 1)
    assert code == 2
    assert finds <= set(failed), lines


def test_a_comparison_that_is_damaged_is_told(verify: Verify, rivals_copied: Path) -> None:
    for text in ("{", "[]", '{"choice": {"chosen": "nobody"}, "candidates": []}', '{"choice": 1, "candidates": 2}'):
        (rivals_copied / CONTENT).write_text(text)
        assert verify(rivals_copied / "comparison")[0] == 2
    (rivals_copied / CONTENT).unlink()
    code, failed, lines = verify(rivals_copied / "comparison")
    assert (code, failed) == (2, ["comparison"])
    assert "--resume" in lines[0]
