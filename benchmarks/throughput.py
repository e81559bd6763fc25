"""Pictures a second of each stage before and in a training step, beside what a textbook does for the same stage.

    python benchmarks/throughput.py DATA [--rounds 3] [--pictures 20000] [--seconds 20] [any option of `darkroom train`]

decode         picture files to pixels with darkroom's pool of processes; peer: Pillow in a PyTorch DataLoader, as many
write cache    decoding, checking the hash of each file, writing pixels and checksums
read cache     opening that cache: every byte is read and checked
augment        batches as training gets them; peer: the crop and flip of textbook.py
step           augmentation, forward, backward and optimiser, in a training of 20 seconds as history.csv has it (without
               probing and validation); peer: the same of textbook.py's ResNet-18 in fp32

Beside each stand the page faults a picture of this process, not of those that decode for it: memory that is freed and
mapped again all the time shows there. Stages and peers take turns, and each round begins with another one.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from darkroom.data.cache import pixels
from darkroom.data.dataset import DataSet, prepare
from darkroom.data.manifest import Manifest
from darkroom.data.workers import decoding_pool
from darkroom.preprocess import Preprocessing, load
from darkroom.progress import say
from darkroom.provenance import available_cores
from measuring import (
    argument_parser,
    darkroom_options,
    launch,
    processor_only,
    ratio,
    rotated,
    short_name,
    show,
    summarise,
    write_results,
)

if TYPE_CHECKING:
    from training_stages import Done, Stage

try:
    import resource
except ImportError:  # Windows does not count page faults
    resource = None

# Nothing here imports torch on top: every process that decodes imports this script again.

BLOCK = 500
"""Pictures that a worker decodes at once."""

PEERS = {"decode": "Pillow in a DataLoader", "augment": "crop and flip, textbook", "step": "ResNet-18, textbook"}


def main(arguments: Sequence[str]) -> None:
    """Rounds, table, file."""
    from training_stages import training_stages

    options, words = parse(arguments)
    processor_only()
    data_config, config = darkroom_options(options.data, words)
    dataset = prepare(options.data, data_config)
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as cache:
        stages = {
            **file_stages(dataset, Path(cache), pictures=options.pictures),
            **training_stages(dataset, data_config, config, seconds=options.seconds),
        }
        rounds = [run_round(stages, number, of=options.rounds) for number in range(options.rounds)]
    rows = {name: [measured[name] for measured in rounds] for name in stages}
    ratios = ratios_of(rows)
    show(ratios)
    summary = {name: summarise(values) for name, values in rows.items()}
    print("\n".join(lines(summary)))
    content = {
        "what_counts": __doc__.partition("\n\n")[2],
        "n": options.rounds,
        "ratios": ratios,
        "summary": summary,
        "rounds": rounds,
    }
    target = options.results / f"throughput-{options.title or short_name(options.data)}.json"
    write_results(target, script=__file__, arguments=arguments, content=content)


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options of this script, and the words that are darkroom's."""
    parser = argument_parser(__file__, __doc__)
    parser.add_argument("data")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=20_000, help="most pictures to decode and to cache")
    parser.add_argument("--seconds", type=float, default=20.0, help="budget of each training")
    options, words = parser.parse_known_args(arguments)
    if min(options.rounds, options.pictures) < 1:
        parser.error("give at least one round and one picture")
    return options, words


def file_stages(dataset: DataSet, cache: Path, *, pictures: int) -> dict[str, "Stage"]:
    """What happens once a picture, on the first `pictures` of the data set."""
    few = replace(dataset.manifest, rows=dataset.manifest.rows[:pictures])
    preprocessing = dataset.preprocessing
    pixels(few, preprocessing, cache)
    stages = {
        "decode": partial(decode, few, preprocessing),
        "decode, peer": partial(decode_with_loader, few, preprocessing),
        "write cache": partial(write_cache, few, preprocessing),
        "read cache": partial(read_cache, few, preprocessing, cache),
    }
    return {name: partial(timed, work) for name, work in stages.items()}


def timed(work: Callable[[], int]) -> "Done":
    """The pictures on which `work` worked, and its seconds."""
    from training_stages import Done

    start = time.perf_counter()
    return Done(work(), time.perf_counter() - start)


def run_round(stages: Mapping[str, "Stage"], number: int, *, of: int) -> dict[str, dict[str, float]]:
    """Every stage once, beginning with another one each round."""
    say(f"round {number + 1} of {of}")
    return {name: measure(name, stages[name]) for name in rotated(list(stages), number)}


def measure(name: str, stage: "Stage") -> dict[str, float]:
    """Pictures a second and page faults a picture of one stage."""
    before = page_faults()
    done = stage()
    speed = done.pictures / done.seconds
    say(f"  {name}: {speed:,.0f} pictures/s")
    faults = {"page_faults_a_picture": (page_faults() - before) / done.pictures} if resource else {}
    return {"pictures_a_second": speed, **faults}


def ratios_of(rows: Mapping[str, Sequence[Mapping[str, float]]]) -> list[dict[str, Any]]:
    """Our stages beside their peers."""
    ratios = []
    for name, peer in PEERS.items():
        ours, theirs = ([row["pictures_a_second"] for row in rows[key]] for key in (name, f"{name}, peer"))
        ratios.append(ratio(name, peer=peer, ours=ours, theirs=theirs, unit="pictures/s"))
    return ratios


def lines(summary: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Iterator[str]:
    """Speed and page faults of every stage, for people."""
    for name, numbers in summary.items():
        faults = numbers.get("page_faults_a_picture")
        told = f", {faults['mean']:.2f} page faults a picture" if faults else ""
        yield f"{name}: {numbers['pictures_a_second']['mean']:,.0f} pictures/s{told}"


def page_faults() -> int:
    """Pages that this process was given so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt if resource else 0


def decode(manifest: Manifest, preprocessing: Preprocessing) -> int:
    """Every picture of the manifest, by processes started for it."""
    paths = [manifest.path(row.id) for row in manifest.rows]
    blocks = [paths[start : start + BLOCK] for start in range(0, len(paths), BLOCK)]
    with decoding_pool(most=len(blocks)) as pool:
        return sum(pool.map(partial(decode_block, preprocessing=preprocessing), blocks))


def decode_block(paths: Sequence[Path], *, preprocessing: Preprocessing) -> int:
    """The work of one process; pixels stay there."""
    return sum(len(load(path, preprocessing)[None]) for path in paths)


class PictureFiles:
    """Picture files as a tutorial reads them."""

    def __init__(self, paths: Sequence[Path], side: int) -> None:
        self.paths, self.side = paths, side

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> npt.NDArray[np.uint8]:
        """One picture (S, S, 3)."""
        with Image.open(self.paths[place]) as opened:
            return np.array(opened.convert("RGB").resize((self.side, self.side)))


def decode_with_loader(manifest: Manifest, preprocessing: Preprocessing) -> int:
    """The same pictures by PyTorch's usual means, with as many processes."""
    from torch.utils.data import DataLoader

    files = PictureFiles([manifest.path(row.id) for row in manifest.rows], preprocessing.width)
    # Started as darkroom starts its own; forked workers would begin with all that this process has loaded.
    loader = DataLoader(files, batch_size=BLOCK, num_workers=available_cores(), multiprocessing_context="forkserver")
    return sum(len(batch) for batch in loader)


def write_cache(manifest: Manifest, preprocessing: Preprocessing) -> int:
    """Decode into a new cache."""
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as folder:
        return len(pixels(manifest, preprocessing, Path(folder)))


def read_cache(manifest: Manifest, preprocessing: Preprocessing, folder: Path) -> int:
    """Check a cache that is there already."""
    return len(pixels(manifest, preprocessing, folder))


if __name__ == "__main__":
    launch(main)
