"""The model card: every figure stands in the run's files, and nothing in it names the machine."""

import copy
import json
import re
import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from darkroom import cli
from darkroom.bundle import Bundle, BundleInfo
from darkroom.export.card import ORIGINS, WEAKEST, model_card
from finished import CLASSES, Finished

CIFAR10_JPEG = "2926f04a28fa75a619f2fc80b8584e4787895fa36c10e217848821cc3b7f3504"


class Papers:
    """What a card is written from, to be changed at will."""

    def __init__(self, finished: Finished) -> None:
        run = finished.run
        self.config: dict[str, Any] = copy.deepcopy(run.read_config())
        self.metrics: dict[str, Any] = copy.deepcopy(run.read_metrics())
        self.info: BundleInfo = Bundle.open(run.bundle).info

    def card(self) -> str:
        """The card of these papers."""
        return model_card(self.config, self.metrics, self.info)

    def front(self) -> dict[str, Any]:
        """The metadata at its head."""
        metadata: dict[str, Any] = yaml.safe_load(self.card().split("---\n")[1])
        return metadata

    def section(self, title: str) -> str:
        """The text below one heading."""
        return self.card().partition(f"\n## {title}\n")[2].partition("\n## ")[0]

    def command(self) -> list[str]:
        """What the card says to type."""
        return shlex.split(self.section("To make it again").strip().splitlines()[0])


@pytest.fixture
def papers(finished_run: Finished) -> Papers:
    return Papers(finished_run)


def numbers(content: object) -> list[float]:
    """Every number in nested tables and lists."""
    if isinstance(content, dict | list | tuple):
        return [
            number for part in (content.values() if isinstance(content, dict) else content) for number in numbers(part)
        ]
    return [float(content)] if isinstance(content, int | float) else []


def rows(text: str) -> list[list[str]]:
    """The rows of the tables in Markdown, without rules."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("| ---")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_export_writes_it_into_the_bundle(finished_run: Finished, papers: Papers) -> None:
    bundle = Bundle.open(finished_run.run.bundle)
    assert "model-card.md" in bundle.info.files
    assert (bundle.folder / "model-card.md").read_text(encoding="utf-8") == papers.card()


def test_every_percentage_stands_in_the_files(papers: Papers) -> None:
    known = {f"{100 * number:.2f} %" for number in numbers([papers.metrics, asdict(papers.info)])}
    confusion = papers.metrics["test"]["confusion_matrix"]
    known |= {f"{100 * cell / sum(row):.2f} %" for row in confusion for cell in row}
    told = re.findall(r"\d+\.\d\d %", papers.card())
    assert len(told) > 40
    assert set(told) <= known


@pytest.mark.parametrize("name", ["accuracy", "macro_f1", "ece", "log_loss", "weighted_f1", "top_k"])
@pytest.mark.parametrize("split", ["test", "validation"])
def test_a_metric_is_told_as_it_was_measured(papers: Papers, split: str, name: str) -> None:
    entry = {**papers.metrics[split][name], "value": 0.1234, "low": 0.0456, "high": 0.5678}
    papers.metrics[split][name] = entry
    if name in papers.info.metrics[split]:
        own = {**papers.info.metrics, split: {**papers.info.metrics[split], name: entry}}
        papers.info = replace(papers.info, metrics=own)
    plain = name in ("ece", "log_loss")
    expected = "0.1234 (0.0456 to 0.5678)" if plain else "12.34 % (4.56 % to 56.78 %)"
    table = rows(papers.section("Results"))
    column = next(place for place, head in enumerate(table[0]) if head.startswith(split))
    assert [row[0] for row in table if row[column] == expected] != []


def test_the_first_words_are_of_the_test_split_where_it_was_opened(papers: Papers) -> None:
    def opening() -> str:
        return papers.card().split("\n## ")[0]

    accuracy, n = papers.metrics["test"]["accuracy"], papers.metrics["test"]["n"]
    assert f"Of {n} test pictures {100 * accuracy['value']:.2f} % are put into the right class" in opening()
    assert f"({100 * accuracy['low']:.2f}".replace("(", "interval ") in opening()
    papers.info = replace(papers.info, metrics={"validation": papers.info.metrics["validation"]})
    assert "validation pictures" in opening()
    assert "test" not in opening()
    assert [result["dataset"]["split"] for result in papers.front()["model-index"][0]["results"]] == ["validation"]


def test_metadata_has_the_form_of_the_hub(papers: Papers) -> None:
    front = papers.front()
    assert front["license"] == "unknown"
    assert front["library_name"] == "darkroom"
    assert {"image-classification", "onnx"} <= set(front["tags"])
    assert front["metrics"] == ["accuracy", "f1"]
    (index,) = front["model-index"]
    assert index["name"] == papers.info.name
    assert [result["dataset"] for result in index["results"]] == [
        {"type": "blobs", "name": "blobs", "split": split} for split in ("test", "validation")
    ]
    for result in index["results"]:
        block = papers.metrics[result["dataset"]["split"]]
        assert result["task"]["type"] == "image-classification"
        values = {metric["type"]: metric["value"] for metric in result["metrics"]}
        assert values == pytest.approx(
            {"accuracy": block["accuracy"]["value"], "f1": block["macro_f1"]["value"]}, abs=1e-6
        )


def test_names_that_yaml_would_misread_stay_names(papers: Papers) -> None:
    for name in ("no", "1.0", "a: b", "- x", "größe 猫", "null"):
        papers.config["data"]["name"] = name
        papers.info = replace(papers.info, name=name)
        (index,) = papers.front()["model-index"]
        assert index["name"] == index["results"][0]["dataset"]["type"] == name
        assert name in papers.card().split("---\n")[1], "readable, too"


def test_it_tells_how_the_network_was_trained(papers: Papers) -> None:
    text, config = papers.section("Training"), papers.config
    result = config["training"]["result"]
    for part in (
        f"seed {config['seed']}",
        f"{result['epochs']} epochs ({result['steps']} steps) in {result['seconds'] / 60:.1f} minutes",
        f"{config['hardware']['cores']} cores",
        "(cpu, 1 threads",
        config["created"][:10],
        f"{config['network']['parameters']:,} parameters",
        f"weights are those of epoch {result['best_epoch']}",
    ):
        assert part in text
    table = dict(rows(text))
    assert table["optimiser"] == config["training"]["settings"]["optimiser"]
    assert float(table["learning rate"]) == pytest.approx(config["training"]["settings"]["learning_rate"], rel=1e-4)
    assert table["flip"] == str(config["training"]["settings"]["augmentation"]["flip"])
    assert "auto" not in table.values()
    assert len(table) == len(rows(text)), "none is told twice"


def test_the_command_is_the_one_that_was_typed(papers: Papers) -> None:
    assert papers.command() == ["darkroom", "run", "blobs", "--epochs", "4", "--width", "0.5", "--threads", "1"]


def test_the_command_leads_to_the_same_settings(papers: Papers) -> None:
    asked = {"flip": False, "minutes": 2.5, "epochs": None, "learning_rate": 0.0123456, "imbalance": "weighted-loss"}
    papers.config["training"]["requested"] |= asked
    papers.config["data"]["requested"] |= {"seed": 7, "archive": "/home/me/down loads/cifar-10-binary.tar.gz"}
    papers.config["data"]["argument"] = "cifar10"
    words = papers.command()
    function, bound, _ = cli.app.parse_args(words[1:], print_error=False, exit_on_error=False)
    assert function is cli.run
    assert bound.args == ("cifar10",)
    data, training = asdict(bound.kwargs["data_config"]), asdict(bound.kwargs["training"])
    assert data["seed"] == 7
    assert str(data["archive"]) == "cifar-10-binary.tar.gz"
    expected = papers.config["training"]["requested"] | {"tensorboard": False}
    assert {name: training[name] for name in expected} == expected


def test_minutes_promise_no_equal_weights(papers: Papers) -> None:
    assert "The clock decides" not in papers.section("To make it again")
    papers.config["training"]["requested"]["minutes"] = 3
    assert "The clock decides" in papers.section("To make it again")


def test_nothing_of_the_machine_s_folders_is_told(finished_run: Finished, papers: Papers) -> None:
    assert str(finished_run.data) in json.dumps(papers.config), "else this proves nothing"
    for folder in (finished_run.data.parent, finished_run.config.cache, Path.home()):
        assert str(folder) not in papers.card()


def test_commit_and_weights_are_named(papers: Papers) -> None:
    papers.config["commit"] = "ab" * 20
    assert f"`{'ab' * 20}`" in papers.section("To make it again")
    assert papers.info.provenance["weights_sha256"] in papers.section("To make it again")
    papers.config["commit"] = None
    assert "`not recorded`" in papers.section("To make it again")


def test_recompressed_cifar10_is_never_quoted_as_the_original(papers: Papers) -> None:
    papers.config["data"] |= {"name": "cifar10-jpeg", "argument": "/data/cifar10.tar.xz", "fingerprint": CIFAR10_JPEG}
    card = papers.card()
    assert card.count("CIFAR-10 (JPEG)") > 3
    assert re.findall(r"CIFAR-10(?! \(JPEG\)|-images)", card) == []
    assert "recompressed as JPEG" in papers.section("Data")
    assert papers.front()["model-index"][0]["results"][0]["dataset"]["name"] == "CIFAR-10 (JPEG)"


@pytest.mark.parametrize(
    ("argument", "archive", "title"),
    [
        ("cifar10", None, ORIGINS["cifar10"].title),
        ("digits", None, ORIGINS["digits"].title),
        ("cifar10", "/data/mine.tar.gz", "blobs"),
        ("/data/cifar10", None, "blobs"),
    ],
)
def test_only_data_beyond_doubt_gets_the_name_of_public_data(
    papers: Papers, argument: str, archive: str | None, title: str
) -> None:
    papers.config["data"]["argument"] = argument
    papers.config["data"]["requested"]["archive"] = archive
    assert f"Trained by darkroom on {title}." in papers.card()
    assert papers.section("Data").strip().startswith(title)


def test_data_is_counted_and_its_faults_are_told(papers: Papers) -> None:
    counts = papers.config["data"]["counts"]
    assert rows(papers.section("Data"))[1:] == [
        [split, f"{sum(by_class.values())}"] for split, by_class in counts.items()
    ]
    assert "1 unreadable pictures were left out" in papers.section("Data")
    assert "opened 1 time." in papers.section("Data")
    assert "have a copy" not in papers.section("Data")
    assert "left aside" not in papers.section("Data")
    papers.config["data"] |= {"leaks": 7, "unreadable": []}
    papers.config["data"]["counts"] = counts | {"unused": {"cat": 1000, "dog": 2}}
    papers.metrics["test_openings"] = 3
    assert "7 training pictures have a copy in validation or test" in papers.section("Data")
    assert "opened 3 times." in papers.section("Data")
    assert "unreadable" not in papers.section("Data")
    assert "1,002 training pictures were left aside" in papers.section("Data")


def test_the_weakest_class_comes_first(papers: Papers) -> None:
    per_class = papers.metrics["test"]["per_class"]
    per_class[CLASSES[1]] |= {"f1": 0.0123, "precision": 0.0234, "recall": 0.0345}
    table = rows(papers.section("Weak spots"))[1:]
    assert table[0] == [CLASSES[1], "1.23 %", "2.34 %", "3.45 %", f"{per_class[CLASSES[1]]['support']}"]
    assert [row[0] for row in table] == sorted(CLASSES, key=lambda name: per_class[name]["f1"])
    per_class[CLASSES[1]]["support"] = 0
    assert [row[0] for row in rows(papers.section("Weak spots"))[1:]] == [row[0] for row in table[1:]]


def test_frequent_mistakes_are_named(papers: Papers) -> None:
    papers.metrics["test"]["confusion_matrix"] = [[6, 0, 3], [0, 9, 0], [1, 0, 8]]
    text = papers.section("Weak spots")
    assert "- blob 1 taken for blob 10: 3 of its pictures (33.33 %)\n- blob 10 taken for blob 1: 1 of" in text
    papers.metrics["test"]["confusion_matrix"] = [[9, 0, 0], [0, 9, 0], [0, 0, 9]]
    assert "taken for" not in papers.section("Weak spots")


def test_hundreds_of_classes_do_not_fill_it(papers: Papers) -> None:
    row = papers.metrics["test"]["per_class"][CLASSES[0]]
    names = tuple(f"kind {number}" for number in range(300))
    papers.metrics["test"] |= {
        "per_class": {name: {**row, "f1": 1 - place / 300} for place, name in enumerate(names)},
        "confusion_matrix": [[0] * 300] * 300,
    }
    papers.info = replace(papers.info, classes=names)
    assert "and 280 more" in papers.card()
    assert f"{WEAKEST} of 300" in papers.section("Weak spots")
    assert [row[0] for row in rows(papers.section("Weak spots"))[1:]] == list(names[::-1][:WEAKEST])


def test_names_do_not_become_markdown(papers: Papers) -> None:
    odd = "a|b *c* <img src=x> `d`\n# e"
    per_class = papers.metrics["test"]["per_class"]
    papers.metrics["test"]["per_class"] = {
        (odd if name == CLASSES[0] else name): row for name, row in per_class.items()
    }
    papers.info = replace(papers.info, classes=(odd, *CLASSES[1:]))
    assert {len(row) for row in rows(papers.section("Weak spots"))} == {5}
    assert r"a\|b \*c\* \<img src=x\> \`d\` \# e" in papers.card()


def test_calibration_is_that_of_the_bundle(papers: Papers) -> None:
    text = papers.section("Calibration")
    for number in (papers.info.threshold, papers.metrics["threshold_coverage"]):
        assert f"{100 * number:.2f} %" in text
    assert f"divided by {papers.info.temperature:.3f}" in text
    papers.info = replace(papers.info, threshold=0.4321, temperature=2.5)
    text = papers.section("Calibration")
    assert "Below 43.21 % confidence" in text
    assert "divided by 2.500" in text
    assert f"{100 * papers.metrics['threshold_coverage']:.2f} %" not in text, "that is of another threshold"


def test_other_arithmetic_owns_its_figures_only(papers: Papers) -> None:
    assert "8-bit integers" not in papers.card()
    test = papers.info.metrics["test"]
    own = {**test, "accuracy": {**test["accuracy"], "value": 0.1234}}
    papers.info = replace(papers.info, quantisation={"weights": "int8"}, metrics={"test": own})
    assert "12.34 %" in papers.card().split("\n## ")[0]
    table = {row[0]: row[1] for row in rows(papers.section("Results"))}
    assert table["accuracy"].startswith("12.34 % (")
    assert table["log loss"].startswith(f"{papers.metrics['test']['log_loss']['value']:.4f} (")
    assert "8-bit integers. Its own are: accuracy, macro F1, calibration error." in papers.section("Results")


def test_limits_licence_and_golden_pictures_are_told(papers: Papers) -> None:
    assert "3 classes and nothing else" in papers.section("Limits")
    assert "12×12 pixels" in papers.section("Limits")
    assert "copies of a few pictures of the data" in papers.section("Limits")
    assert "Not stated" in papers.section("Licence")
    papers.info = replace(papers.info, provenance={**papers.info.provenance, "golden": "drawn", "licence": "cc-by-4.0"})
    assert "none of the data" in papers.section("Limits")
    assert "cc-by-4.0" in papers.section("Licence")
    assert papers.front()["license"] == "cc-by-4.0"
