"""The command line as people type it: what is printed where, and one clear line for everything that is wrong."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from darkroom import __version__, cli, workflow
from darkroom.comparison.folder import Ablation, Comparison
from darkroom.errors import TrainingStoppedError
from darkroom.runs import Run
from finished import CLASSES, Finished, draw_blobs

Command = Callable[..., tuple[int, str, str]]

COMMANDS = ("doctor", "train", "evaluate", "export", "share", "predict", "serve", "client", "key", "run")
DARKROOM = Path(sys.executable).with_name("darkroom")
QUICK = ("--epochs", "1", "--threads", "1", "--width", "0.5", "--precision", "fp32", "--memory-format", "contiguous")


@pytest.fixture
def darkroom(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Run a command in this process and an empty folder; gives exit code, standard output and error."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = 0
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def copied(finished_run: Finished, tmp_path: Path) -> Finished:
    """A run to change."""
    return finished_run.copy(tmp_path / "run")


def refused(answer: tuple[int, str, str], *said: str, last: bool = False) -> None:
    """Exit code 2, nothing on standard output, and one line on standard error that says all of `said`."""
    code, out, err = answer
    lines = err.splitlines()
    assert code == 2, err
    assert out == ""
    assert "Traceback" not in err
    if not last:
        assert len(lines) == 1, err
    assert lines[-1].startswith("darkroom: error: "), err
    for part in said:
        assert part in lines[-1]


def cache(finished: Finished) -> tuple[str, str]:
    """The option that names the cache of the run."""
    return "--cache", str(finished.config.cache)


def test_help_names_every_command(darkroom: Command) -> None:
    code, out, _ = darkroom("--help")
    assert code == 0
    for name in (*COMMANDS, "models", "compare", "ablate", "report", "verify", "notebook"):
        assert name in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_sentence(darkroom: Command, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = darkroom(name, "--help")
    assert code == 0
    rows = [line.strip("│ ").strip() for line in out.splitlines() if re.match(r"│ +--\w|│ \*? +[A-Z]+", line)]
    assert rows
    for row in rows:
        assert len(re.split(r"\s{2,}", row.removeprefix("*").strip())) > 1, f"{name}: {row} says nothing"


def test_no_command_is_a_request_for_help(darkroom: Command) -> None:
    code, out, _ = darkroom()
    assert code == 0
    assert "Usage: darkroom" in out


def test_version(darkroom: Command) -> None:
    assert darkroom("--version") == (0, f"{__version__}\n", "")


def test_help_answers_at_once() -> None:
    """Under 0.4 s, where a machine that is busy with other tests may need several tries."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    best = 10.0
    for _ in range(12):
        start = time.perf_counter()
        subprocess.run([DARKROOM, "--help"], capture_output=True, check=True, env=environment)
        best = min(best, time.perf_counter() - start)
        if best < 0.35:
            break
    assert best < 0.4


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys; from darkroom.cli import main\nsys.argv = ['darkroom', 'train', '--help']\n"
        "try:\n    main()\nexcept SystemExit: pass\n"
        "heavy = ('torch', 'numpy', 'matplotlib', 'PIL', 'onnxruntime', 'flask')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_doctor_prints_text_or_json_and_writes_nothing(darkroom: Command, finished_run: Finished) -> None:
    before = sorted(finished_run.data.rglob("*"))
    code, text, _ = darkroom("doctor", finished_run.data, *cache(finished_run))
    assert code == 0
    assert "broken.png" in text
    code, out, _ = darkroom("doctor", finished_run.data, "--json", *cache(finished_run))
    assert code == 0
    assert "broken.png" in json.dumps(json.loads(out))
    assert sorted(finished_run.data.rglob("*")) == before
    assert list(Path().iterdir()) == []


def test_train_evaluate_export_predict_one_after_the_other(
    darkroom: Command, finished_run: Finished, tmp_path: Path
) -> None:
    out = tmp_path / "my run"
    code, printed, told = darkroom("train", finished_run.data, "--out", out, *QUICK, *cache(finished_run))
    assert code == 0, told
    again = shlex.join(["darkroom", "evaluate", str(out), "--cache", str(finished_run.config.cache)])
    assert printed.splitlines() == [str(out), f"evaluate it: {again}"]
    assert "180 pictures of 3 classes" in told
    code, printed, _ = darkroom("evaluate", out, *cache(finished_run))
    assert code == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert printed.startswith("validation: 27 pictures\naccuracy ")
    assert f"{metrics['validation']['accuracy']['value']:.1%}".replace("%", " %") in printed
    assert "opened" not in printed
    assert metrics["test_openings"] == 0
    for number in (1, 2):
        code, printed, _ = darkroom("evaluate", out, "--split", "test", *cache(finished_run))
        assert printed.splitlines()[-1] == f"The test split has been opened {number} time(s)."
    code, printed, _ = darkroom("export", out, *cache(finished_run))
    assert (code, printed) == (0, f"{out / 'bundle'}\n")
    code, printed, _ = darkroom("predict", out, out / "samples")
    assert code == 0
    assert len(printed.splitlines()) == 10


def test_run_ends_with_the_story_of_its_folder(darkroom: Command, finished_run: Finished) -> None:
    code, printed, _ = darkroom("run", finished_run.data, *QUICK, *cache(finished_run))
    assert code == 0
    run = Run(Path("runs") / "blobs")
    accuracy = run.read_metrics()["test"]["accuracy"]["value"]
    assert printed.strip().startswith(f"{accuracy:.1%}".replace("%", " %"))
    assert "serve          darkroom serve runs/blobs" in printed
    assert run.read_metrics()["test_openings"] == 1
    command = next(line.partition("predict")[2] for line in printed.splitlines() if line.startswith("  predict"))
    code, printed, _ = darkroom(*shlex.split(command)[1:])
    assert code == 0
    assert len(printed.splitlines()) == 10
    refused(darkroom("run", finished_run.data, "--out", run.folder, *QUICK), "already holds a run")


def test_predict_prints_a_table(darkroom: Command, finished_run: Finished) -> None:
    samples = sorted(finished_run.run.samples.iterdir())
    code, out, _ = darkroom("predict", finished_run.run.folder, *samples, "--top", 2)
    assert code == 0
    for line, sample in zip(out.splitlines(), samples, strict=True):
        assert line.startswith(f"{sample}"[:60])
        assert len(re.findall(r"\d+\.\d %", line)) == 2
        assert any(name in line for name in CLASSES)


def test_predict_gives_json_for_files_folders_and_globs_alike(darkroom: Command, finished_run: Finished) -> None:
    samples = finished_run.run.samples
    answers = []
    for images in ([samples], [samples / "*.png"], sorted(samples.iterdir())):
        code, out, _ = darkroom("predict", finished_run.run.bundle, *images, "--json")
        assert code == 0
        answers.append({entry["name"]: entry for entry in json.loads(out)})
    assert answers[0] == answers[1] == answers[2]
    assert len(answers[0]) == 10
    for entry in answers[0].values():
        assert set(entry["probabilities"]) == set(CLASSES)
        assert sum(entry["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert entry["label"] == max(entry["probabilities"], key=lambda name: entry["probabilities"][name])
        assert entry["sure"] == (entry["confidence"] >= finished_run.run.read_metrics()["threshold"])


def test_a_broken_picture_among_good_ones_gets_its_own_error(
    darkroom: Command, finished_run: Finished, tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(finished_run.run.samples, folder)
    (folder / "0-broken.png").write_bytes(b"\x89PNG")
    code, out, _ = darkroom("predict", finished_run.run.folder, folder, "--json")
    entries = json.loads(out)
    assert code == 0
    assert [("error" in entry) for entry in entries] == [True] + [False] * 10
    code, out, _ = darkroom("predict", finished_run.run.folder, folder)
    assert "0-broken.png" in out.splitlines()[0]
    assert "  error: " in out.splitlines()[0]


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
def test_a_name_that_is_no_text_can_be_printed(finished_run: Finished, tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/caf\xe9.png"
    shutil.copyfile(next(finished_run.run.samples.iterdir()), odd)
    environment = {**os.environ, "PYTHONUTF8": "0", "LC_ALL": "en_US.UTF-8", "PYTHONIOENCODING": "utf-8:strict"}
    command = [DARKROOM, "predict", finished_run.run.folder, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "caf\\udce9.png" in done.stdout


def test_a_reader_that_has_gone_is_no_error(finished_run: Finished) -> None:
    command = (
        f"{shlex.join([str(DARKROOM), 'predict', str(finished_run.run.folder), str(finished_run.run.samples)])} | :"
    )
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)  # noqa: S602
    assert done.stderr == ""


def test_data_that_is_missing_comes_with_near_names(darkroom: Command, tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    refused(darkroom("train", tmp_path / "pest", "--out", "new"), "does not exist", "did you mean pets?")
    refused(darkroom("doctor", tmp_path / "pest"), "did you mean pets?")
    refused(darkroom("run", "digts"), "did you mean digits?")
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--minutes", "5", "--epochs", "3"), "--minutes 5.0 and --epochs 3 contradict each other"),
        (("--epochs", "0"), "--epochs is 0: give at least 1"),
        (("--epochs", "many"), 'Invalid value for --epochs: unable to convert "many" into int'),
        (("--learning-rate", "inf"), "--learning-rate is inf"),
        (("--image-size", "4"), "--image-size is 4: give a side from 8 to 1024"),
        (("--optimiser", "adam"), 'Choose from: "sgd", "adamw", "muon"'),
        (("--epoch", "3"), "Unknown option: --epoch. Did you mean --epochs?"),
        (("--epochs",), "--epochs requires an argument"),
        (("second",), "'second'"),
        (("--resume",), "--resume needs --out"),
        (("--resume", "--overwrite", "--out", "x"), "--resume and --overwrite contradict each other"),
        (("--model", "resnet51"), "timm knows no network resnet51: did you mean"),
        (("--archive", "x.zip"), "--archive x.zip goes with cifar10 or animals10"),
    ],
)
@pytest.mark.parametrize("command", ["train", "run"])
def test_wrong_options_are_said_in_one_line(
    darkroom: Command, command: str, arguments: tuple[str, ...], said: str
) -> None:
    refused(darkroom(command, "digits", *arguments), said)
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("develop",), 'Unknown command "develop"'),
        (("train",), "requires an argument"),
        (("evaluate",), "requires an argument"),
        (("evaluate", "x", "--split", "train"), 'Invalid value "train" for --split'),
        (("evaluate", "x", "--image-size", "32"), "Unknown option: --image-size"),
        (("predict", "x"), "no pictures are named"),
        (("predict", "x", "y.png", "--top", "0"), "--top is 0: give at least 1"),
        (("serve", "x", "--port", "99999"), "--port is 99999"),
        (("serve", "x", "--max-files", "0"), "--max-files is 0"),
        (("serve", "x", "--max-request-megabytes", "inf"), "--max-request-megabytes is inf"),
    ],
)
def test_wrong_commands_are_said_in_one_line(darkroom: Command, arguments: tuple[str, ...], said: str) -> None:
    refused(darkroom(*arguments), said)


def test_an_out_that_is_a_file_or_holds_a_run_is_left_alone(
    darkroom: Command, finished_run: Finished, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    refused(darkroom("train", finished_run.data, "--out", tmp_path / "file"), "is a file: give a folder")
    assert (tmp_path / "file").read_text() == "mine"
    refused(darkroom("train", finished_run.data, "--out", finished_run.run.folder), "already holds a run")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read and write everything")
def test_an_out_that_may_not_be_written_is_said_in_a_line(
    darkroom: Command, finished_run: Finished, tmp_path: Path
) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    answer = darkroom("train", finished_run.data, "--out", tmp_path / "closed" / "run", *QUICK, *cache(finished_run))
    refused(answer, "Permission denied", "closed", last=True)


def test_an_out_below_a_file_is_said_in_a_line(darkroom: Command, finished_run: Finished, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    answer = darkroom("train", finished_run.data, "--out", tmp_path / "file" / "run", *QUICK, *cache(finished_run))
    refused(answer, "file", last=True)


@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_run_folders_that_are_missing_or_incomplete(
    darkroom: Command, copied: Finished, tmp_path: Path, command: str
) -> None:
    storage = cache(copied)
    refused(darkroom(command, tmp_path / "nowhere", *storage), "no run folder at")
    refused(darkroom(command, tmp_path / "here", *storage), "config.json is missing: start it with `darkroom train`")
    (tmp_path / "here" / "config.json").write_text('{"model_type": "bert"}')
    refused(darkroom(command, tmp_path / "here", *storage), "is not that of a run")
    (tmp_path / "here" / "config.json").unlink()
    copied.run.weights.write_bytes(copied.run.weights.read_bytes()[:100])
    refused(darkroom(command, copied.run.folder, *storage), "model.safetensors cannot be read", last=True)
    copied.run.weights.unlink()
    refused(darkroom(command, copied.run.folder, *storage), "has not ended", last=True)
    copied.run.manifest.unlink()
    refused(darkroom(command, copied.run.folder, *storage), "manifest.csv is missing")
    copied.run.config.write_text('{"data":')
    refused(darkroom(command, copied.run.folder, *storage), "config.json is not readable JSON")


@pytest.mark.parametrize("command", ["predict", "serve"])
def test_models_that_are_missing_or_changed(darkroom: Command, copied: Finished, tmp_path: Path, command: str) -> None:
    more = [copied.run.samples] if command == "predict" else []
    refused(darkroom(command, tmp_path / "nowhere", *more), "is neither a run nor a bundle")
    graph = copied.run.bundle / "model.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    refused(darkroom(command, copied.run.folder, *more), "model.onnx was changed after the export")
    (copied.run.bundle / "bundle.json").unlink()
    refused(darkroom(command, copied.run.folder, *more), "has no bundle yet: make it with `darkroom export")


def test_pictures_that_are_not_there(darkroom: Command, finished_run: Finished, tmp_path: Path) -> None:
    model = finished_run.run.folder
    refused(darkroom("predict", model, "nope.png"), "there is no file or folder nope.png")
    refused(darkroom("predict", model, "*.tiff"), "nothing matches *.tiff")
    refused(darkroom("predict", model, tmp_path / "here"), "there are no pictures in the folder")


def test_an_error_of_several_lines_becomes_one(
    darkroom: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "two\nlines").write_text("x")
    refused(darkroom("train", tmp_path / "two\nlines", "--out", "new"), "two lines is neither a folder nor")


@pytest.mark.parametrize(
    ("package", "command", "extra"),
    [
        ("torch", ("train", "digits", "--out", "x"), "train"),
        ("timm", ("train", "digits", "--out", "x"), "transfer"),
        ("huggingface_hub", ("train", "digits", "--out", "x"), "transfer"),
        ("flask", ("serve", "x"), "serve"),
        ("matplotlib", ("serve", "x"), "report"),
        ("yaml", ("serve", "x"), "report"),
        ("typst", ("serve", "x"), "report"),
        ("grpc", ("serve", "x"), "tf-client"),
        ("tensorflow", ("train", "digits", "--out", "x"), "tf"),
    ],
)
def test_what_is_not_installed_is_named_with_its_extra(
    darkroom: Command, monkeypatch: pytest.MonkeyPatch, package: str, command: tuple[str, ...], extra: str
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setattr(workflow, "bundle_of", missing)
    monkeypatch.setattr(workflow, "train", missing)
    refused(darkroom(*command), f"{package} is not installed: pip install 'darkroom[{extra}]'")


def test_a_training_that_was_stopped_says_how_to_go_on(darkroom: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise TrainingStoppedError("stopped in epoch 2 of 9; all is saved")

    monkeypatch.setattr(workflow, "train", stopped)
    code, out, err = darkroom("train", "my pets", "--out", "my run")
    assert (code, out) == (130, "")
    assert err == (
        "darkroom: stopped in epoch 2 of 9; all is saved; go on with: "
        "darkroom train 'my pets' --out 'my run' --resume\n"
    )


@pytest.mark.parametrize("command", ["compare", "ablate"])
def test_a_study_that_was_stopped_says_how_to_go_on(
    darkroom: Command, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def stopping(error: BaseException, begun: bool) -> Callable[..., None]:
        def stop(data: str, folder: Path, **_: object) -> None:
            if begun:
                (Comparison if command == "compare" else Ablation)(folder).keep({"requested": {}})
            raise error

        return stop

    again = f"go on with: darkroom {command} 'my pets' --out out --resume\n"
    for error, begun, said in (
        (KeyboardInterrupt(), False, "darkroom: stopped\n"),
        (
            TrainingStoppedError("stopped after 3 steps; all is saved"),
            True,
            f"stopped after 3 steps; all is saved; {again}",
        ),
        (KeyboardInterrupt(), True, f"darkroom: stopped; {again}"),
    ):
        monkeypatch.setattr(f"darkroom.{command}.{command}", stopping(error, begun))
        code, out, err = darkroom(command, "my pets", "--out", "out")
        assert (code, out) == (130, "")
        assert err.endswith(said)
        assert err.count("\n") == 1


def test_ctrl_c_elsewhere_leaves_quietly(darkroom: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(workflow, "examine", stopped)
    assert darkroom("doctor", "digits") == (130, "", "darkroom: stopped\n")


def test_a_toml_file_has_the_names_of_the_options(darkroom: Command, tmp_path: Path) -> None:
    draw_blobs(tmp_path / "blobs", pictures=12)
    Path("settings.toml").write_text(
        f"[doctor]\nseed = 5\n[train]\nepochs = 3\nwidth = 0.5\nthreads = 1\ncache = '{tmp_path}'\nout = 'from toml'\n"
        "precision = 'fp32'\nmemory-format = 'contiguous'\nimage_size = 9\nflip = false\n"
    )
    code, out, err = darkroom("--config", "settings.toml", "train", tmp_path / "blobs", "--epochs", "1")
    assert code == 0, err
    run = Run(Path("from toml"))
    assert out.splitlines()[0] == "from toml"
    content = run.read_config()
    requested = content["training"]["requested"]
    assert requested["epochs"] == 1, "the command line comes first"
    assert (requested["width"], requested["flip"], requested["memory_format"]) == (0.5, False, "contiguous")
    assert content["data"]["preprocessing"]["width"] == 9
    assert content["seed"] == 0, "the table of another command"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[train]\nepoch = 3\n", '"[epoch]" from settings.toml'),
        ("[train]\nepochs = 'many'\n", 'from settings.toml: unable to convert "many" into int'),
        ("[train]\nepochs = 0\n", "--epochs is 0"),
        ("[train]\nminutes = 1\nepochs = 1\n", "contradict each other"),
        ("[trian]\nepochs = 3\n", "has a table [trian]: give tables of doctor, train"),
        ("epochs = 3\n", "has epochs outside of a command's table"),
        ("train = 3\n", "has train outside of a command's table"),
        ("[train\n", "settings.toml is not TOML"),
        ("[train]\n\xff", "settings.toml is not TOML"),
    ],
)
def test_a_toml_file_that_is_wrong_is_said_in_one_line(darkroom: Command, text: str, said: str) -> None:
    Path("settings.toml").write_bytes(text.encode("latin-1"))
    refused(darkroom("--config", "settings.toml", "train", "digits"), said)
    assert [path.name for path in Path().iterdir()] == ["settings.toml"]


def test_a_toml_file_that_is_missing_or_a_folder(darkroom: Command) -> None:
    refused(darkroom("--config", "nope.toml", "train", "digits"), "--config nope.toml is no file")
    refused(darkroom("--config", ".", "train", "digits"), "--config . is no file")
    refused(darkroom("--config"), "--config requires an argument")


def test_a_toml_file_is_forgotten_by_the_next_command(darkroom: Command) -> None:
    Path("settings.toml").write_text("[doctor]\nseed = -1\n")
    refused(darkroom("--config", "settings.toml", "doctor", "nowhere"), "--seed is -1")
    refused(darkroom("doctor", "nowhere"), "does not exist")


def test_serve_answers_until_it_is_told_to_stop(finished_run: Finished) -> None:
    command = [DARKROOM, "serve", finished_run.run.folder, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            greeting = server.stderr.readline()
            found = re.search(r"http://127\.0\.0\.1:(\d+)/", greeting)
            assert found, greeting
            url = found[0]
            with urllib.request.urlopen(f"{url}healthz", timeout=30) as answer:  # noqa: S310
                assert answer.status == 200
            sample = next(finished_run.run.samples.iterdir())
            boundary = "----darkroom"
            body = (
                (
                    f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{sample.name}"\r\n'
                    "Content-Type: image/png\r\n\r\n"
                ).encode()
                + sample.read_bytes()
                + f"\r\n--{boundary}--\r\n".encode()
            )
            request = urllib.request.Request(  # noqa: S310
                f"{url}api/v1/predict", body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}
            )
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                told = json.load(answer)
            assert sample.name in json.dumps(told)
            assert any(name in json.dumps(told) for name in CLASSES)
        finally:
            server.send_signal(signal.SIGTERM)
            _, rest = server.communicate(timeout=30)
    assert server.returncode == 0
    assert rest.splitlines()[-1] == "stopped"


def test_the_module_can_be_run_too() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "darkroom", "train", "nowhere-at-all"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("darkroom: error: ")
    assert done.stderr.count("\n") == 1
