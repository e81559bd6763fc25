"""Models that come with darkroom: found by name in a checkout and in an installed wheel, and fit to be given away."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bundles
from darkroom import cli, shipped
from darkroom.bundle import Bundle
from darkroom.engines.novelty import FALSE_ALARMS
from darkroom.engines.onnx_runtime import OnnxRuntimeEngine
from darkroom.engines.prediction import Prediction
from darkroom.errors import BundleError, RunError, UsageError
from darkroom.export.drawn import drawn_pictures
from darkroom.export.share import share_bundle
from darkroom.preprocess import Preprocessing, load
from darkroom.runs import Run
from darkroom.summary import shipped_lines
from darkroom.web.papers import read_samples
from darkroom.workflow import bundle_of, predict, samples_of
from finished import Finished

REPOSITORY = Path(__file__).parents[1]
MOST_BYTES = 10 * 10**6
SHIPPED = shipped.shipped()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, with one model, `colours`, on the shelf."""
    bundles.make_bundle(tmp_path / "shelf" / "colours", card="# colours\n")
    (tmp_path / "shelf" / "README.md").write_text("of the shelf")
    (tmp_path / "shelf" / "notes").mkdir()
    (tmp_path / "shelf" / "notes" / "mine.txt").write_text("no bundle")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(shipped, "SHELF", tmp_path / "shelf")
    return tmp_path / "here"


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command that succeeds prints."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as leaving:
        cli.main([str(argument) for argument in arguments])
    assert not leaving.value.code
    return capsys.readouterr().out


def shelved(here: Path) -> Path:
    """Where the model on the shelf lies."""
    return here.parent / "shelf" / "colours"


# What is on the shelf


def test_cifar10_comes_with_darkroom() -> None:
    assert "cifar10" in SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_bundle_is_small_and_answers(name: str) -> None:
    folder = SHIPPED[name]
    assert sum(path.stat().st_size for path in folder.rglob("*")) <= MOST_BYTES
    with OnnxRuntimeEngine.open(folder) as engine:  # proves its hashes, its golden pixels and its golden answers
        assert engine.bundle.metrics["test"]["n"] > 0
    assert {path.name for path in folder.iterdir()} == {*Bundle.open(folder).info.files, "bundle.json"}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_bundle_has_a_card_a_licence_and_no_picture_of_the_data(name: str) -> None:
    info = Bundle.open(SHIPPED[name]).info
    card = (SHIPPED[name] / "model-card.md").read_text(encoding="utf-8")
    assert "model-card.md" in info.files
    assert f"{100 * info.metrics['test']['accuracy']['value']:.2f} %" in card
    assert info.provenance["licence"] == "mit"
    assert info.provenance["golden"] == "drawn"


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_bundle_tells_what_is_unlike_its_data(name: str) -> None:
    novelty = Bundle.open(SHIPPED[name]).info.novelty
    assert novelty, "fit it on the validation pictures, as an export does"
    assert 0 < novelty["false_alarms"] <= FALSE_ALARMS


def test_the_drawn_samples_of_cifar10_are_recognised() -> None:
    folder = SHIPPED["cifar10"]
    samples = shipped.samples_to_try(folder)
    assert samples is not None
    answers = predict(folder, *sorted(samples.glob("*.png")))
    assert [answer.label for answer in answers if isinstance(answer, Prediction)] == [
        Path(answer.name).stem for answer in answers
    ]
    assert [sample.media_type for sample in read_samples(samples)] == ["image/png"] * len(answers)


def test_only_what_comes_with_darkroom_has_such_samples(here: Path, tmp_path: Path) -> None:
    assert shipped.samples_to_try(shelved(here)) is None
    (here.parent / "shelf" / "samples" / "colours").mkdir(parents=True)
    assert samples_of("colours", bundle_of("colours")) == here.parent / "shelf" / "samples" / "colours"
    assert set(shipped.shipped()) == {"colours"}, "and they are no model"
    bundles.make_bundle(tmp_path / "other" / "colours")
    assert samples_of("x", tmp_path / "other" / "colours") is None


@pytest.mark.parametrize("name", SHIPPED)
def test_git_leaves_the_bytes_of_a_shipped_bundle_alone(name: str) -> None:
    done = subprocess.run(
        ["git", "-C", REPOSITORY, "check-attr", "text", SHIPPED[name] / "bundle.json"], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip("no git checkout")
    assert done.stdout.strip().endswith("text: unset")


def test_the_shelf_of_a_checkout_is_its_folder_of_models() -> None:
    assert REPOSITORY.resolve() / "models" == shipped.SHELF


# Names


def test_a_name_is_a_shipped_model(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shipped.shipped() == {"colours": shelved(here)}, "and what is no bundle has no name"
    assert bundle_of("colours") == shelved(here)
    assert capsys.readouterr().err == ""


def test_a_folder_of_data_hides_no_model(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "colours" / "red").mkdir(parents=True)
    (here / "colours" / "config.json").write_text('{"model_type": "bert"}')
    assert bundle_of("colours") == shelved(here)
    assert "taking the model colours that comes with darkroom" in capsys.readouterr().err


def test_a_bundle_here_comes_first(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundles.make_bundle(here / "colours")
    assert bundle_of("colours") == Path("colours")
    assert "taking colours, not the model colours that comes with darkroom" in capsys.readouterr().err


def test_a_run_here_comes_first(here: Path, finished_run: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(finished_run.run.folder, here / "colours")
    assert bundle_of("colours") == Path("colours/bundle")
    assert "taking colours/bundle, not the model" in capsys.readouterr().err
    shutil.rmtree(here / "colours" / "bundle")
    with pytest.raises(BundleError, match="the run colours has no bundle yet"):
        bundle_of("colours")


def test_the_shelf_itself_is_no_other_model(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shelved(here).parent)
    assert bundle_of("colours").samefile(shelved(here))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("path", ["./colours", "colours/", "../here/colours"])
def test_a_path_is_not_a_name(here: Path, path: str) -> None:
    with pytest.raises(BundleError, match="is neither a run nor a bundle"):
        bundle_of(path)


def test_a_name_that_nobody_has_is_said_in_a_line(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BundleError) as caught:
        bundle_of("penguins")
    assert str(caught.value) == (
        "penguins is neither a run nor a bundle, nor a model that comes with darkroom (colours): "
        "make one with `darkroom run DATA`"
    )
    monkeypatch.setattr(shipped, "SHELF", here / "nowhere")
    with pytest.raises(BundleError, match=r"comes with darkroom \(none does\): make one with"):
        bundle_of("penguins")


def test_near_names_are_suggested(here: Path) -> None:
    Run(here / "runs" / "digits").write_config({"data": {}, "training": {}, "network": {}})
    bundles.make_bundle(here / "penguin")
    (here / "penguin pictures").mkdir()
    for typed, meant in (
        ("colors", "colours"),
        ("digits", "runs/digits"),
        ("runs/digts", "runs/digits"),
        ("penguins", "penguin"),
    ):
        with pytest.raises(BundleError, match=rf": did you mean {meant}\? Or make one with `darkroom run DATA`$"):
            bundle_of(typed)


def test_predict_answers_by_name(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "photo.png").write_bytes(bundles.encoded((10, 200, 30)))
    (answer,) = json.loads(printed(capsys, "predict", "colours", "photo.png", "--json"))
    assert answer["label"] == "green"


def test_models_lists_what_is_on_the_shelf(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(shelved(here))
    entry = {"accuracy": {"value": 0.953, "low": 0.938, "high": 0.965}, "n": 9000}
    bundles.make_bundle(
        shelved(here),
        card="c",
        metrics={"validation": entry, "test": entry | {"n": 1234}},
        provenance={"source": "paint"},
    )
    first, second = printed(capsys, "models").splitlines()
    assert first == (
        "colours  95.3 % of 1,234 test pictures right (95 % interval 93.8 % to 96.5 %), 5 classes, 24×16 pixels, 0.0 MB"
    )
    assert second == f"         trained on paint; {shelved(here) / 'model-card.md'}"
    monkeypatch.setattr(shipped, "SHELF", here)
    assert printed(capsys, "models") == "no model comes with this darkroom\n"


def test_models_of_all_kinds_can_be_listed(finished_run: Finished) -> None:
    first, second = shipped_lines({"blobs": finished_run.run.bundle})
    assert f"of {finished_run.run.read_metrics()['test']['n']} test pictures" in first
    assert second.strip().startswith("trained on blobs; ")


# Giving a bundle away


def test_a_shared_bundle_holds_no_picture_of_the_data(finished_run: Finished, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in finished_run.run.folder.rglob("*") if path.is_file()}
    shared = share_bundle(finished_run.run.bundle, tmp_path / "models" / "blobs", licence="MIT")
    of_data = {path.read_bytes() for path in finished_run.data.rglob("*.png")}
    assert set(Bundle.open(finished_run.run.bundle).golden.encoded) <= of_data, "else this proves nothing"
    assert not set(Bundle.open(shared.folder).golden.encoded) & of_data
    cached = finished_run.dataset().pixels
    assert not any((cached == pixels).all(axis=(1, 2, 3)).any() for pixels in shared.golden.pixels)
    assert {path: path.read_bytes() for path in before} == before


def test_a_shared_bundle_answers_as_the_run_s(finished_run: Finished, tmp_path: Path) -> None:
    share_bundle(finished_run.run.bundle, tmp_path / "blobs")
    pixels = np.array(finished_run.dataset().pixels[:50])
    with OnnxRuntimeEngine.open(tmp_path / "blobs") as given, OnnxRuntimeEngine.open(finished_run.run.bundle) as own:
        np.testing.assert_array_equal(given.predict(pixels), own.predict(pixels))


def test_a_shared_bundle_says_under_which_licence(finished_run: Finished, tmp_path: Path) -> None:
    own = Bundle.open(finished_run.run.bundle).info
    for licence, told in (("CC-BY-4.0", "license: cc-by-4.0\n"), (None, "license: unknown\n")):
        info = share_bundle(finished_run.run.bundle, tmp_path / "blobs", licence=licence).info
        card = (tmp_path / "blobs" / "model-card.md").read_text(encoding="utf-8")
        assert told in card
        assert "pictures that a program drew, none of the data" in card
        assert (info.classes, info.metrics, info.parity) == (own.classes, own.metrics, own.parity)
    for licence in ("mit or so", "", "a\nb: c"):
        with pytest.raises(UsageError, match=r"--licence is .*: give an identifier such as mit"):
            share_bundle(finished_run.run.bundle, tmp_path / "other", licence=licence)
    assert not (tmp_path / "other").exists()


def test_what_is_no_longer_of_the_run_is_not_shared(finished_run: Finished, tmp_path: Path) -> None:
    copied = finished_run.copy(tmp_path / "run")
    metrics = copied.run.read_metrics()
    copied.run.write_metrics({name: value for name, value in metrics.items() if name != "test"})
    with pytest.raises(
        BundleError, match="was evaluated after its bundle was made: make it anew with `darkroom export"
    ):
        share_bundle(copied.run.bundle, tmp_path / "out")
    copied.run.write_metrics(metrics)
    copied.run.weights.write_bytes(copied.run.weights.read_bytes() + b"\0")
    with pytest.raises(BundleError, match="was trained after its bundle was made"):
        share_bundle(copied.run.bundle, tmp_path / "out")
    shutil.copytree(copied.run.bundle, tmp_path / "alone" / "bundle")
    with pytest.raises(RunError, match="lies in no run, of which the model card tells: name the run folder"):
        share_bundle(tmp_path / "alone" / "bundle", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_share_needs_no_data_and_says_where_it_wrote(
    finished_run: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = finished_run.copy(tmp_path / "run")
    content = copied.run.read_config()
    content["data"]["root"] = str(tmp_path / "gone")
    copied.run.write_config(content)
    out = tmp_path / "out"
    assert printed(capsys, "share", copied.run.folder, out, "--license", "mit") == f"{out}\n"
    assert Bundle.open(tmp_path / "out").info.provenance["licence"] == "mit"


@pytest.mark.parametrize(
    "contract", [Preprocessing(32, 32), Preprocessing(8, 8), Preprocessing(224, 160, crop_fraction=0.875)]
)
def test_drawn_pictures_are_different_and_always_the_same(contract: Preprocessing) -> None:
    pictures = drawn_pictures(contract)
    assert pictures == drawn_pictures(contract)
    pixels = np.stack([load(picture, contract) for picture in pictures])
    assert len(np.unique(pixels, axis=0)) == len(pictures) == 10
    assert (pixels.std(axis=(1, 2, 3)) > 10).all(), "none is empty"


def test_drawn_pictures_take_the_steps_of_the_contract() -> None:
    opened = [Image.open(io.BytesIO(picture)) for picture in drawn_pictures(Preprocessing(32, 32))]
    assert {"PNG", "JPEG", "WEBP", "GIF", "BMP"} == {picture.format for picture in opened}
    assert {"RGB", "RGBA", "L", "P"} == {picture.mode for picture in opened}
    assert {1, 6} == {picture.getexif().get(0x112, 1) for picture in opened}
    assert sum(picture.size != (32, 32) for picture in opened) >= 5


# Packages


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is built, whose models/ holds a bundle besides those that are committed."""
    copied = tmp_path_factory.mktemp("sources")
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, copied)
    shutil.copytree(REPOSITORY / "src", copied / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    shutil.copytree(REPOSITORY / "models", copied / "models")
    bundles.make_bundle(copied / "models" / "colours", card="# colours\n")
    (copied / "models" / "notes").mkdir()
    (copied / "models" / "notes" / "mine.txt").write_text("no bundle")
    return copied


def build(sources: Path, kind: str, out: Path) -> Path:
    """What setuptools makes of the sources, as pip would ask it to."""
    program = f"import sys; from setuptools import build_meta; build_meta.build_{kind}(sys.argv[1])"
    out.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", program, out], cwd=sources, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (made,) = out.iterdir()
    return made


def test_an_installed_wheel_answers_by_name(sources: Path, tmp_path: Path) -> None:
    old = sources / "build" / "lib" / "darkroom" / "bundles" / "withdrawn"
    old.mkdir(parents=True)
    (old / "bundle.json").write_text("left by an earlier build")
    with zipfile.ZipFile(build(sources, "wheel", tmp_path / "wheel")) as wheel:
        wheel.extractall(tmp_path / "site")  # noqa: S202
    installed = tmp_path / "site" / "darkroom" / "bundles"
    assert {path.name for path in installed.iterdir()} == {*SHIPPED, "colours", "samples"}
    assert {path.name for path in (installed / "samples").iterdir()} == {"cifar10"}
    for name in ("bundle.json", "golden.npz", "model-card.md", "model.onnx"):
        assert (installed / "colours" / name).read_bytes() == (sources / "models" / "colours" / name).read_bytes()
    (tmp_path / "photo.png").write_bytes(bundles.encoded((230, 20, 20)))
    done = subprocess.run(
        [sys.executable, "-m", "darkroom", "predict", "colours", "photo.png"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:2] == ["photo.png", "red"]


def test_a_source_distribution_brings_the_models(sources: Path, tmp_path: Path) -> None:
    with tarfile.open(build(sources, "sdist", tmp_path / "sdist")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"setup.py", "models/colours/model.onnx", "models/colours/model-card.md"} <= names
