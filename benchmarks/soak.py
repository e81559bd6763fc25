"""The server under more load than it can take, with broken pictures and killed workers, for as long as is asked.

    python benchmarks/soak.py RUN_OR_BUNDLE [--minutes 30] [--connections 120] [--kill-every 5] [--title TEXT]

Before anything is killed, each request is made once by itself: that is the answer known for it. From then on every
answer must be that one, to the last digit, or a 503 or 429; what gets no answer counts as lost. Meanwhile a worker
process chosen at random is killed again and again, but never the oldest one, and the resident memory of the server and
of that one is noted.
"""

import argparse
import http.client
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from darkroom.errors import DarkroomError
from darkroom.progress import say
from darkroom.workflow import bundle_of
from load_generator import BOUNDARY, Request, Tally, multipart, saturate
from measuring import argument_parser, launch, short_name, write_results
from served_speed import descendants, free_port, resident

PATH, MAP_PATH = "/api/v1/predict", "/api/v1/explain"
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
WARM_SECONDS = 60.0
"""Before memory counts: allocators and caches fill."""
SAMPLE_SECONDS = 5.0


@dataclass
class Watch:
    """What is seen of the server's processes, beside the requests."""

    pid: int
    kill_every: float
    kills: int = 0
    samples: list[dict[str, float]] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Kill and look until it is done."""
        generator, start = random.Random(0), time.perf_counter()  # noqa: S311  (nothing secret about it)
        next_kill, next_look = self.kill_every, 0.0
        while not self.done.wait(0.1):
            now = time.perf_counter() - start
            workers = sorted(descendants(self.pid))
            if now >= next_kill and len(workers) > 1:
                with suppress(ProcessLookupError):
                    os.kill(generator.choice(workers[1:]), signal.SIGKILL)
                    self.kills += 1
                next_kill = now + self.kill_every
            if now >= next_look:
                self.samples.append(self._look(now, workers))
                next_look = now + SAMPLE_SECONDS

    def _look(self, now: float, workers: Sequence[int]) -> dict[str, float]:
        alone = resident(self.pid) - sum(map(resident, workers))
        return {"seconds": now, "server": alone / 1e6, "worker": resident(min(workers)) / 1e6}


def main(arguments: Sequence[str]) -> None:
    """Load, then the file of results."""
    options = parse(arguments)
    bundle = bundle_of(options.model)
    port = free_port()
    command = [sys.executable, "-m", "darkroom", "serve", str(bundle), "--port", str(port), "--no-access-log"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)  # noqa: S603
    try:
        wait_until_alive(process, port)
        requests = [known(port, path, body) for path, body in bodies()]
        watch = Watch(process.pid, options.kill_every)
        watcher = threading.Thread(target=watch.run)
        watcher.start()
        say(f"{len(requests)} kinds of requests from {options.connections} connections for {options.minutes:g} minutes")
        try:
            rate, tally = saturate(port, requests, seconds=60 * options.minutes, connections=options.connections)
        finally:
            watch.done.set()
            watcher.join()
        process.send_signal(signal.SIGTERM)
        stopped = process.wait(60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    content = report(rate, tally, watch, stopped) | {"minutes": options.minutes, "connections": options.connections}
    say(json.dumps({name: value for name, value in content.items() if name != "memory_samples"}, indent=2))
    title = options.title or short_name(options.model)
    write_results(options.results / f"soak-{title}.json", script=__file__, arguments=arguments, content=content)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options."""
    parser = argument_parser(__file__, __doc__)
    parser.add_argument("model", type=Path, help="a run, a bundle, or the name of a shipped model")
    parser.add_argument("--minutes", type=float, default=30.0, help="of load")
    parser.add_argument("--connections", type=int, default=120, help="that ask without a pause")
    parser.add_argument("--kill-every", type=float, default=5.0, help="seconds between two killed workers")
    return parser.parse_args(arguments)


def report(rate: float, tally: Tally, watch: Watch, stopped: int) -> dict[str, Any]:
    """What came of it; memory is compared between the first and the last tenth after warming up."""
    warm = [
        sample for sample in watch.samples if sample["seconds"] >= min(WARM_SECONDS, watch.samples[-1]["seconds"] / 3)
    ]
    tenth = max(1, len(warm) // 10)
    memory = {}
    for who in ("server", "worker"):
        first = float(np.median([sample[who] for sample in warm[:tenth]]))
        last = float(np.median([sample[who] for sample in warm[-tenth:]]))
        memory[who] = {"first_megabytes": first, "last_megabytes": last, "ratio": last / first}
    return {
        "answered_rightly": len(tally.seconds),
        "answered_a_second": rate,
        "wrong": tally.wrong,
        "lost": tally.lost,
        "refused_with_503": tally.refused,
        "killed_workers": watch.kills,
        "p50_ms": 1000 * tally.median,
        "p99_ms": 1000 * tally.quantile(0.99),
        "exit_code_after_sigterm": stopped,
        "memory": memory,
        "memory_samples": watch.samples,
    }


def bodies() -> list[tuple[str, bytes]]:
    """Path and body of each kind of request: pictures, larger ones, broken ones, several in one form, and maps."""
    generator = np.random.default_rng(0)
    pictures = [drawn(generator, kind, side) for kind in FORMATS for side in (32, 200)]
    pictures += [drawn(generator, "JPEG", 1500), drawn(generator, "PNG", 700)]
    broken = [hurt(generator, picture) for picture in pictures for _ in range(2)]
    several = b"".join(part(f"{place}.bin", one) for place, one in enumerate([*pictures[:4], *broken[:4]]))
    forms = [multipart(one) for one in (*pictures, *pictures, *broken)]
    kinds = [(PATH, form) for form in (*forms, several + f"--{BOUNDARY}--\r\n".encode())]
    return [*kinds, (MAP_PATH, multipart(pictures[0])), (MAP_PATH, multipart(broken[-1]))]


def drawn(generator: np.random.Generator, kind: str, side: int) -> bytes:
    """A picture of soft colours, as a file."""
    coarse = Image.fromarray(generator.integers(0, 256, (5, 5, 3), np.uint8))
    coarse.resize((side, side * 3 // 4), Image.Resampling.BICUBIC).save(stream := io.BytesIO(), kind)
    return stream.getvalue()


def hurt(generator: np.random.Generator, picture: bytes) -> bytes:
    """The same file, cut off or with some of its bytes changed."""
    if generator.random() < 0.5:
        return picture[: int(generator.integers(1, len(picture)))]
    content = bytearray(picture)
    for place in generator.integers(0, len(content), 8):
        content[place] ^= int(generator.integers(1, 256))
    return bytes(content)


def part(name: str, content: bytes) -> bytes:
    """A part of a form."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    return head.encode() + content + b"\r\n"


def known(port: int, path: str, body: bytes) -> Request:
    """The request with the answer that it gets while nothing else happens."""
    request = Request(path, body)
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("POST", path, body=body, headers=request.headers)
        response = connection.getresponse()
        content = response.read()
    if response.status not in ((200, 422) if path == MAP_PATH else (200,)):
        raise DarkroomError(f"the server answers {response.status} to a request of the benchmark: {content[:200]!r}")
    return Request(path, body, content, response.status)


def wait_until_alive(process: subprocess.Popen[bytes], port: int) -> None:
    """Until it listens; raises `DarkroomError` where it ends instead."""
    end = time.perf_counter() + 60
    while time.perf_counter() < end and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with suppress(OSError, http.client.HTTPException), closing(connection):
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.05)
    raise DarkroomError("the server did not come up within 60 s")


if __name__ == "__main__":
    launch(main)
