"""Features of a pre-trained network as `darkroom train --frozen` computes them, beside its forward pass alone.

    python benchmarks/frozen.py DATA MODEL [--rounds 3] [--cache FOLDER] [any option of `darkroom train`]

ours   reading the pixel cache, computing features of all training and validation pictures and of the mirror images of
       the former, storing them, fitting the linear classifier on them
peer   the same network in the same arithmetic on the same number of pictures that lie in memory, in batches of the same
       size, and nothing else

Both take turns, and each round begins with the other one. Decoding is timed apart, as it happens once a data set.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from darkroom.data.dataset import DataSet, prepare
from darkroom.errors import UsageError
from darkroom.models.backbones import Backbone, weights_hash
from darkroom.models.inference import batch_size_for
from darkroom.training.candidates import candidate
from darkroom.training.frozen import Extraction, train_probe
from darkroom.training.machine import Arithmetic, arrange
from darkroom.training.recipes import Settings
from darkroom.training.settle import settle
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


def main(arguments: Sequence[str]) -> None:
    """Rounds, table, file."""
    parser = argument_parser(__file__, __doc__)
    parser.add_argument("data")
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=3)
    options, words = parser.parse_known_args(arguments)
    processor_only()
    data_config, config = darkroom_options(options.data, words)
    config = replace(config, model=options.model, frozen=True)
    entrant = candidate(options.model)
    start = time.perf_counter()
    dataset = prepare(options.data, data_config, entrant.preprocessing)
    decoding = time.perf_counter() - start
    content = settle(dataset, data_config=data_config, config=config)
    arithmetic = Arithmetic(**content["training"]["arithmetic"])
    settings = Settings.from_json(content["training"]["settings"])
    architecture = entrant.architecture(dataset, settings)
    network = entrant.new(dataset, architecture, seed=0, normalisation=entrant.normalisation(dataset))
    if not isinstance(network, Backbone):
        raise UsageError(f"{options.model} is not pre-trained: name a backbone")
    works = {
        "ours": lambda: ours(network, dataset, arithmetic),
        "peer": lambda: forward_alone(network, dataset, arithmetic),
    }
    rounds = [{name: works[name]() for name in rotated(list(works), number)} for number in range(options.rounds)]
    speeds = {name: [row[name] for row in rounds] for name in works}
    what = f"frozen {entrant.kind} at {dataset.preprocessing.width} pixels"
    ratios = [ratio(what, peer="forward alone", ours=speeds["ours"], theirs=speeds["peer"], unit="views/s")]
    show(ratios)
    result = {
        "what_counts": __doc__.partition("\n\n")[2],
        "n": options.rounds,
        "arithmetic": content["training"]["arithmetic"],
        "preparing_seconds": decoding,
        "views": views_of(dataset),
        "ratios": ratios,
        "summary": summarise(rounds),
        "rounds": rounds,
    }
    target = options.results / f"frozen-{options.title or short_name(options.data)}.json"
    write_results(target, script=__file__, arguments=arguments, content=result)


def views_of(dataset: DataSet) -> int:
    """Pictures of which features are computed, mirror images included."""
    return 2 * len(dataset.manifest.indices("train")) + len(dataset.manifest.indices("validation"))


def ours(network: Backbone, dataset: DataSet, arithmetic: Arithmetic) -> float:
    """Views a second with everything that the frozen stage does."""
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as cache:
        start = time.perf_counter()
        extraction = Extraction(network, weights_hash(network.body), dataset, arithmetic, Path(cache))
        train_probe(extraction, mirrored=True)
        return views_of(dataset) / (time.perf_counter() - start)


@torch.no_grad()
def forward_alone(network: Backbone, dataset: DataSet, arithmetic: Arithmetic) -> float:
    """Views a second of the forward pass."""
    side = dataset.preprocessing.width
    number = batch_size_for(side)
    batch = torch.rand(number, 3, side, side) * 255
    if arithmetic.channels_last:
        batch = batch.contiguous(memory_format=torch.channels_last)
    network = arrange(network, arithmetic).eval()  # type: ignore[assignment]
    start, done = time.perf_counter(), 0
    while done < views_of(dataset):
        with torch.autocast("cpu", torch.bfloat16, enabled=arithmetic.bf16):
            network.features(batch)
        done += number
    return done / (time.perf_counter() - start)


if __name__ == "__main__":
    launch(main)
