"""The server under load, beside its peers: requests a second, latency at 70 % of that, start, memory.

    python benchmarks/served_speed.py RUN [--int8] [--rounds 3] [--seconds 10] [--peers torch …] [--title TEXT]

All get the same multipart requests from the same machine, in turns, each round beginning with another one: validation
pictures of RUN as they are, and photographs of 12 megapixels that are drawn here. Each server is started anew for each
round; the latencies at 70 % count from when a request should have begun. An answer counts only if it names the class
that the bundle gives that picture. LitServe and BentoML live in benchmarks/.venv-serving (`make bench-serving`).
"""

import argparse
import http.client
import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from darkroom.config import DataConfig
from darkroom.data.dataset import reopen
from darkroom.engines.onnx_runtime import OnnxRuntimeEngine
from darkroom.engines.prediction import Failure, stream_predictions
from darkroom.errors import DarkroomError
from darkroom.progress import say
from darkroom.runs import Run
from load_generator import Request, at_rate, multipart, saturate
from measuring import argument_parser, launch, ratio, rotated, show, summarise, write_results

HERE = Path(__file__).parent
OURS = "darkroom"
PEERS = ("torch", "pillow", "litserve", "bentoml")
OWN_PYTHON = HERE / ".venv-serving" / "bin" / "python"
IN_OWN = ("litserve", "bentoml")
SMALL, LARGE = "small", "12 megapixels"
COUNT = 64
"""Different small pictures."""
CONNECTIONS = 8
SHARE = 0.7

Row = dict[str, Any]


def main(arguments: Sequence[str]) -> None:
    """Rounds, table, file."""
    options = parse(arguments)
    run = Run(options.run)
    pictures = {SMALL: small_pictures(run), LARGE: [photograph(seed) for seed in range(4)]}
    bundle = run.int8_bundle if options.int8 else run.bundle
    expected = {kind: classes_of(bundle, contents) for kind, contents in pictures.items()}
    names = [OURS, *options.peers]
    rounds: list[dict[str, Row]] = []
    for number in range(options.rounds):
        rows = {}
        for name in rotated(names, number):
            say(f"round {number + 1} of {options.rounds}: {name}")
            rows[name] = measure(name, run.folder, bundle, pictures, expected, seconds=options.seconds)
        rounds.append(rows)
    ratios = list(ratios_of(rounds, options.peers))
    show(ratios)
    ours = summarise([rows[OURS] for rows in rounds])
    title = options.title or run.folder.name + ("-int8" if options.int8 else "")
    content = {
        "model": run.folder.name,
        "bundle": bundle.name,
        "connections": CONNECTIONS,
        "seconds": options.seconds,
        "picture_bytes": {kind: round(float(np.mean([len(one) for one in each]))) for kind, each in pictures.items()},
        "ratios": ratios,
        "contestants": {name: summarise([rows[name] for rows in rounds]) for name in names},
        "rounds": rounds,
    }
    say(f"ready in {ours['ready_seconds']['mean']:.2f} s, {ours['resident_megabytes']['mean']:.0f} MB resident")
    write_results(options.results / f"serving-{title}.json", script=__file__, arguments=arguments, content=content)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options."""
    parser = argument_parser(__file__, __doc__)
    parser.add_argument("run", type=Path, help="an exported run")
    parser.add_argument("--int8", action="store_true", help="serve the bundle in 8-bit integers; torch has the network")
    parser.add_argument("--rounds", type=int, default=3, help="each contestant's turns")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS), help="which peers")
    return parser.parse_args(arguments)


def small_pictures(run: Run) -> list[bytes]:
    """Files of validation pictures."""
    manifest = reopen(run, DataConfig()).manifest
    ids = manifest.indices("validation")
    chosen = ids[np.linspace(0, len(ids) - 1, min(COUNT, len(ids))).astype(int)]
    return [manifest.content(int(id)) for id in chosen]


def photograph(seed: int) -> bytes:
    """4000 × 3000 pixels of soft shapes and grain, as heavy as a phone's JPEG."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (15, 20, 3), np.uint8)).resize((4000, 3000), Image.BICUBIC)
    grain = generator.integers(-9, 10, (3000, 4000, 1), np.int16)
    pixels = (np.asarray(coarse, np.int16) + grain).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(stream := io.BytesIO(), "JPEG", quality=88)
    return stream.getvalue()


def classes_of(bundle: Path, contents: Sequence[bytes]) -> list[str]:
    """What the bundle says of each."""
    with OnnxRuntimeEngine.open(bundle) as engine:
        answers = list(stream_predictions(engine, ((str(place), one) for place, one in enumerate(contents))))
    if failed := [answer for answer in answers if isinstance(answer, Failure)]:
        raise DarkroomError(f"the bundle cannot answer a picture of the benchmark: {failed[0]}")
    return [answer.label for answer in answers]  # type: ignore[union-attr]


def measure(
    name: str,
    run: Path,
    bundle: Path,
    pictures: Mapping[str, Sequence[bytes]],
    expected: Mapping[str, Sequence[str]],
    *,
    seconds: float,
) -> Row:
    """One server, from its start to its end."""
    path = "/api/v1/predict?top=1" if name in (OURS, "torch") else "/predict"
    row: Row = {}
    with served(name, run, bundle) as (process, port):
        row["ready_seconds"] = wait_ready(process, port, pictures[SMALL][0], path, name)
        for kind, contents in pictures.items():
            label = kind.replace(" ", "_")
            requests = [Request(path, multipart(content)) for content in contents]
            if name in (OURS, "torch"):
                requests = [
                    Request(one.path, one.body, f'"label":"{label}"'.encode())
                    for one, label in zip(requests, expected[kind], strict=True)
                ]
            saturate(port, requests, seconds=min(2.0, seconds), connections=CONNECTIONS)  # warm
            rate, tally = saturate(port, requests, seconds=seconds, connections=CONNECTIONS)
            row[f"{label}_per_second"] = rate
            row[f"{label}_failures"] = tally.wrong + tally.lost + tally.refused
            calm = at_rate(port, requests, rate=SHARE * rate, seconds=seconds, connections=4 * CONNECTIONS)
            row |= {f"{label}_p50": 1000 * calm.median, f"{label}_p99": 1000 * calm.quantile(0.99)}
            row[f"{label}_p99_over_p50"] = calm.quantile(0.99) / calm.median
        row["resident_megabytes"] = resident(process.pid) / 1e6
    return row


@contextmanager
def served(name: str, run: Path, bundle: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A contestant's process and port."""
    port = free_port()
    if name == OURS:
        command = [sys.executable, "-m", "darkroom", "serve", str(bundle), "--port", str(port), "--no-access-log"]
    else:
        python = str(OWN_PYTHON) if name in IN_OWN else sys.executable
        model = run if name == "torch" else bundle
        command = [python, str(HERE / "serving_peers.py"), name, str(model), str(port)]
    log = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)  # noqa: S603
    try:
        yield process, port
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    """One on which nobody listens."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def wait_ready(process: subprocess.Popen[bytes], port: int, content: bytes, path: str, name: str) -> float:
    """Seconds until the first picture is answered; raises `DarkroomError` where that never happens."""
    start, request = time.perf_counter(), Request(path, multipart(content))
    while time.perf_counter() - start < 120:
        if process.poll() is not None:
            raise DarkroomError(f"{name} ended with exit code {process.returncode} before it answered")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        with suppress(OSError, http.client.HTTPException), closing(connection):
            connection.request("POST", request.path, body=request.body, headers=request.headers)
            answer = connection.getresponse()
            if answer.status == 200 and answer.read():
                return time.perf_counter() - start
        time.sleep(0.02)
    raise DarkroomError(f"{name} answered nothing within 120 s")


def resident(pid: int) -> int:
    """Bytes of a process and all that it started."""
    total = 0
    for each in [pid, *descendants(pid)]:
        with suppress(OSError):
            for line in Path(f"/proc/{each}/status").read_text(encoding="utf-8").splitlines():
                if line.startswith("VmRSS"):
                    total += 1024 * int(line.split()[1])
    return total


def descendants(pid: int) -> Iterator[int]:
    """Children, and theirs."""
    with suppress(OSError):
        for tasks in Path(f"/proc/{pid}/task").iterdir():
            for child in (tasks / "children").read_text(encoding="utf-8").split():
                yield int(child)
                yield from descendants(int(child))


def ratios_of(rounds: Sequence[Mapping[str, Row]], peers: Sequence[str]) -> Iterator[Row]:
    """Ours against each peer, for both kinds of pictures."""
    for peer in peers:
        for kind in (SMALL, LARGE):
            label = kind.replace(" ", "_")
            for name, unit, less in (("per_second", "requests/s", False), ("p99", "ms", True)):
                field = f"{label}_{name}"
                ours, theirs = ([rows[who][field] for rows in rounds] for who in (OURS, peer))
                yield ratio(f"{kind}: {name}", peer=peer, ours=ours, theirs=theirs, unit=unit, less_is_better=less)


if __name__ == "__main__":
    launch(main)
