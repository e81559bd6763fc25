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

import pytest

from darkroom import verify as checking
from darkroom.cli import main
from darkroom.comparison.folder import Comparison
from darkroom.config import ServeConfig
from darkroom.data.manifest import Manifest
from darkroom.engines.onnx_runtime import OnnxRuntimeEngine
from darkroom.evaluation.metrics import measure
from darkroom.report.write import write_report
from darkroom.runs import Run
from darkroom.web import create_app
from finished import CLASSES, Finished
from pictures import encoded, noisy
from reported import ABLATION, Reported, compared
from tampering import FILES, TAMPERINGS, edited, other_graph

OF_SPLITS = tuple(
    f"{split}: {what}"
    for split in ("validation", "test")
    for what in ("pictures", "labels", "predictions", "metrics", "what the bundle says")
)
Answer = tuple[int, list[str], list[str]]
"""Exit code, the checks that failed, and all lines."""
Verify = Callable[..., Answer]


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Resampling takes longest: the same question gets the answer that it got before."""
    known: dict[tuple[bytes, bytes, tuple[str, ...]], dict[str, Any]] = {}

    def remembered(labels: Any, answers: Any, classes: Any) -> dict[str, Any]:
        key = labels.tobytes(), answers.tobytes(), tuple(classes)
        if key not in known:
            known[key] = measure(labels, answers, classes)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checking, "measure", remembered)
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
            if (found := re.match(r"FAILED  ((?:(?:train|validation|test): )?[^:]+): ", line))
        ]
        assert len(failed) == sum(line.startswith("FAILED") for line in lines)
        return code or 0, failed, lines

    return ask


def contents(*folders: Path) -> dict[Path, tuple[int, bytes]]:
    """Every file and folder with its time and what it holds."""
    paths = sorted(path for folder in folders for path in (folder, *folder.rglob("*")))
    return {path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in paths}


def test_a_reported_run_holds_in_every_check_and_is_left_as_it_is(verify: Verify, copied: Finished) -> None:
    before = contents(copied.run.folder, copied.data)
    code, failed, lines = verify(copied.run.folder)
    assert (code, failed) == (0, []), lines
    for name in ("manifest", "bundle", *OF_SPLITS, "temperature and threshold", "insights", "report"):
        assert any(line.startswith(f"ok      {name}: ") for line in lines), name
    assert any("all 27 have the hash" in line for line in lines)
    assert contents(copied.run.folder, copied.data) == before


def test_a_run_without_a_report_can_be_verified(verify: Verify, finished_run: Finished) -> None:
    code, failed, lines = verify(finished_run.run.folder)
    assert (code, failed) == (0, []), lines
    assert not any(line.startswith("ok      report") for line in lines)


@pytest.mark.parametrize(("tamper", "finds"), TAMPERINGS, ids=lambda value: getattr(value, "__name__", ""))
def test_tampering_is_found(verify: Verify, copied: Finished, tamper: Callable[[Run], None], finds: set[str]) -> None:
    tamper(copied.run)
    code, failed, lines = verify(copied.run.folder)
    assert code == 2
    assert failed
    assert finds <= set(failed), lines
    if tamper is other_graph:
        assert "bundle" not in failed, "which is whole, so that only its answers tell"


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


def test_what_is_no_run_is_told(verify: Verify, tmp_path: Path) -> None:
    assert verify(tmp_path / "nowhere")[0] == 2
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
    with serving(b'{"weights_sha256": "ab"}') as address:
        code, failed, _ = verify(reported_run.run.folder, "--sample", 1, "--server", address)
    assert (code, failed) == (2, ["server"])


def asked(address: str, run: Run) -> checking.Check:
    """The check of a server alone."""
    return checking._check("server", lambda: checking._server(address, run))


@pytest.mark.parametrize(
    ("body", "options"),
    [
        (b'{"weights_sha256": "' + b"0" * 64 + b'"}', {}),
        (b'{"weights_sha256": null}', {}),
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
    assert lines[-1].startswith("ok      report: ")
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


@pytest.mark.parametrize(
    ("name", "path", "found"),
    [
        ("comparison/comparison.json", ("candidates", 1, "validation", "accuracy", "value"), "comparison"),
        ("comparison/comparison.json", ("candidates", 0, "serving", "milliseconds"), "report"),
        ("comparison/runs/rival/metrics.json", ("validation", "accuracy", "value"), "comparison"),
        ("comparison/runs/cnn/metrics.json", ("test", "accuracy", "value"), "test: metrics"),
        ("ablation/ablation.json", ("effects", 1, "mean"), "report"),
    ],
)
def test_a_comparison_that_was_changed_is_found(
    verify: Verify, rivals: Comparison, tmp_path: Path, name: str, path: tuple[Any, ...], found: str
) -> None:
    shutil.copytree(rivals.folder.parent, tmp_path / "copy")
    with edited(tmp_path / "copy" / name) as content:
        for part in path[:-1]:
            content = content[part]
        content[path[-1]] += 0.01
    code, failed, lines = verify(tmp_path / "copy" / "comparison")
    assert code == 2
    assert found in failed, lines


def test_a_comparison_that_is_damaged_is_told(verify: Verify, rivals: Comparison, tmp_path: Path) -> None:
    shutil.copytree(rivals.folder.parent, tmp_path / "copy")
    for text in ("{", "[]", '{"choice": {"chosen": "nobody"}, "candidates": []}'):
        (tmp_path / "copy" / "comparison" / "comparison.json").write_text(text)
        assert verify(tmp_path / "copy" / "comparison")[0] == 2
