"""`darkroom compare` from data to choice, on drawn pictures and tiny networks."""

import json
from pathlib import Path

import pytest

from backbone_folders import write_backbone
from darkroom import workflow
from darkroom.cli import main
from darkroom.compare import compare
from darkroom.comparison import plan as planning
from darkroom.comparison.folder import Comparison
from darkroom.comparison.words import paragraph, table
from darkroom.config import CompareConfig, DataConfig
from darkroom.errors import ModelError, RunError, UsageError
from darkroom.figures.comparison import pareto
from finished import draw_blobs


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blobs") / "blobs"
    draw_blobs(folder, pictures=40)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    folder = tmp_path_factory.mktemp("weights")
    return ("cnn", write_backbone(folder / "one"), write_backbone(folder / "two", "test_efficientnet"))


@pytest.fixture(scope="module")
def compared(data: Path, models: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("comparison")
    place = Comparison(folder / "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "OVERHEAD_SECONDS", 3.0)
        patch.setattr("darkroom.comparison.measure.SERVING_SECONDS", 0.05)
        compare(
            str(data),
            place.folder,
            data_config=DataConfig(cache=folder / "cache"),
            config=CompareConfig(models=models, minutes=1.5, finetune=1),
        )
    return place


def rows_of(place: Comparison) -> list[dict]:
    return json.loads(place.content.read_text())["candidates"]


def test_every_candidate_is_there_with_all_its_numbers(compared: Comparison) -> None:
    rows = rows_of(compared)
    names = [row["name"] for row in rows]
    assert names[:2] == ["one-frozen", "two-frozen"] or names[:2] == ["two-frozen", "one-frozen"]
    assert names[2] == "cnn"
    assert names[3].endswith("-fine-tuned")
    for row in rows:
        assert row["reason"]
        assert row["parameters"] > 0
        assert row["multiply_adds"] > 0
        assert row["serving"]["milliseconds"] > 0
        assert row["serving"]["bytes"] > 1000
        accuracy = row["validation"]["accuracy"]
        assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    assert sum(row["chosen"] for row in rows) == 1


def test_all_saw_the_same_split(compared: Comparison) -> None:
    manifests = {(compared.run(row["name"]).folder / "manifest.csv").read_bytes() for row in rows_of(compared)}
    assert len(manifests) == 1


def test_the_test_split_is_opened_for_the_chosen_one_and_ours_only(compared: Comparison) -> None:
    for row in rows_of(compared):
        opened = compared.run(row["name"]).read_metrics()["test_openings"]
        assert opened == (1 if row["chosen"] or row["name"] == "cnn" else 0)
        assert ("test" in row) == bool(opened)


def test_fine_tuning_goes_to_the_best_frozen_network(compared: Comparison) -> None:
    rows = {row["name"]: row for row in rows_of(compared)}
    frozen = [row for row in rows.values() if row["how"] == "frozen"]
    (tuned,) = [row for row in rows.values() if row["how"] == "fine-tuned"]
    best = max(
        frozen, key=lambda row: (row["validation"]["accuracy"]["value"], -row["validation"]["log_loss"]["value"])
    )
    assert tuned["network"] == best["network"]


def test_it_is_told_in_words_and_numbers(compared: Comparison) -> None:
    text = compared.text.read_text()
    content = json.loads(compared.content.read_text())
    chosen = content["choice"]["chosen"]
    assert f"* {chosen}" in text
    assert f"{chosen} was chosen: " in text
    assert "The rule: " in text
    assert "Limits: " in text
    assert "test pictures, opened once after the choice" in text
    for row in content["candidates"]:
        assert row["reason"] in text
    for suffix in (".png", ".svg"):
        assert compared.figure.with_suffix(suffix).stat().st_size > 5000


def test_the_choice_can_be_served(compared: Comparison) -> None:
    assert workflow.bundle_of(compared.folder) == compared.chosen.bundle


def test_two_folders_of_one_name_are_refused(data: Path, tmp_path: Path) -> None:
    twins = tuple(write_backbone(tmp_path / place / "tiny") for place in ("a", "b"))
    with pytest.raises(UsageError, match="have the same name"):
        compare(str(data), tmp_path / "out", data_config=DataConfig(), config=CompareConfig(models=twins))


def test_a_comparison_is_not_overwritten_unasked(compared: Comparison, data: Path) -> None:
    before = compared.content.read_bytes()
    with pytest.raises(RunError, match="already holds a comparison"):
        compare(str(data), compared.folder, data_config=DataConfig(), config=CompareConfig(models=("cnn",)))
    with pytest.raises(UsageError, match="contradict"):
        compare(
            str(data),
            compared.folder,
            data_config=DataConfig(),
            config=CompareConfig(models=("cnn",)),
            resume=True,
            overwrite=True,
        )
    assert compared.content.read_bytes() == before


def test_an_unknown_network_costs_nothing(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="did you mean"):
        compare(str(data), tmp_path / "out", data_config=DataConfig(), config=CompareConfig(models=("cnn", "resnet51")))
    assert not (tmp_path / "out").exists()


def test_resumed_candidates_are_not_trained_again(
    compared: Comparison, data: Path, models: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "OVERHEAD_SECONDS", 3.0)
    monkeypatch.setattr("darkroom.comparison.measure.SERVING_SECONDS", 0.05)

    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("darkroom.workflow.train", never)
    before = {row["name"]: row["validation"] for row in rows_of(compared)}
    compare(
        str(data),
        compared.folder,
        data_config=DataConfig(cache=compared.folder.parent / "cache"),
        config=CompareConfig(models=models, minutes=1.5, finetune=1),
        resume=True,
    )
    assert {row["name"]: row["validation"] for row in rows_of(compared)} == before
    openings = [compared.run(row["name"]).read_metrics()["test_openings"] for row in rows_of(compared)]
    assert max(openings) == 1, "it was opened before the break"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--minutes", "0"], "--minutes is 0"),
        (["--finetune", "-1"], "--finetune is -1"),
        (["--models", "cnn", "cnn"], "names cnn twice"),
        (["--resume"], "--resume needs --out"),
    ],
)
def test_what_makes_no_sense_is_told_in_one_line(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["compare", "digits", *options])
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1


def row(name: str, ms: float, accuracy: float, *, chosen: bool = False) -> dict:
    entry = {"value": accuracy, "low": accuracy - 0.01, "high": accuracy + 0.01}
    block = {"accuracy": entry, "macro_f1": entry, "log_loss": {"value": 0.3}, "ece": {"value": 0.02}, "n": 500}
    serving = {"milliseconds": ms, "bytes": 10_000_000, "pictures_a_second": 100.0}
    return {
        "name": name,
        "how": "frozen",
        "chosen": chosen,
        "reason": "because",
        "parameters": 1,
        "multiply_adds": 1e6,
        "train_seconds": 60.0,
        "validation": block,
        "serving": serving,
    }


def test_the_front_holds_what_nothing_beats_in_both() -> None:
    rows = [row("a", 1, 0.8), row("b", 2, 0.7), row("c", 3, 0.9), row("d", 4, 0.9), row("e", 1, 0.75)]
    assert [one["name"] for one in pareto(rows)] == ["a", "c"]


def test_the_table_is_sorted_and_aligned() -> None:
    head, *lines, _ = table([row("slow", 10, 0.8), row("a-much-longer-name", 1, 0.95, chosen=True)])
    assert lines[0].startswith("* a-much-longer-name")
    assert len({len(line) for line in (head, *lines)}) == 1


def test_what_was_left_out_is_told() -> None:
    content = {
        "candidates": [row("only", 1, 0.9, chosen=True)],
        "choice": {"prefer": "latency", "close": "close: near"},
        "seed": 0,
        "left_out": ["left out: vgg16"],
    }
    assert "1 thing(s) were left out" in paragraph(content)
