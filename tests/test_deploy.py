"""The files of deploy/: they parse, have the fields that matter, and name only what exists."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from PIL import Image

from darkroom import cli
from darkroom.config import ServeConfig
from darkroom.engines.onnx_runtime import OnnxRuntimeEngine
from darkroom.web import systemd
from darkroom.web.systemd import BYTES_A_PIXEL, unit
from finished import Finished
from pictures import encoded
from serving import serving

FEWEST_THREADS = 2
"""Of a server with one or two workers."""

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
CLUSTER = {path.stem: yaml.safe_load(path.read_text()) for path in (DEPLOY / "kubernetes").glob("*.yaml")}
COMPOSE_FILES = {
    path.relative_to(DEPLOY).as_posix(): yaml.safe_load(path.read_text()) for path in DEPLOY.rglob("compose.yaml")
}
COMPOSE = COMPOSE_FILES["compose.yaml"]["services"]["darkroom"]
BEHIND = COMPOSE_FILES["tensorflow-serving/compose.yaml"]["services"]
"""The page, and TensorFlow Serving behind it."""
KINDS = {"Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy", "Ingress"}
FLY = tomllib.loads((DEPLOY / "fly.toml").read_text())


def served(arguments: list[str]) -> ServeConfig:
    """The settings of `darkroom serve` with these arguments, which must all be known."""
    function, bound, _ = cli.app.parse_args(["serve", *arguments], print_error=False, exit_on_error=False)
    assert function is cli.serve
    settings = bound.arguments.get("settings", cli.SERVING)
    assert isinstance(settings, ServeConfig)
    return settings


def instructions() -> list[tuple[str, str]]:
    """The lines of the Dockerfile, those that go on put together."""
    text = re.sub(r"\\\n\s*", "", DOCKERFILE)
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def of(name: str) -> list[str]:
    """What follows an instruction of the Dockerfile, each time."""
    return [rest for instruction, rest in instructions() if instruction == name]


# ---- the image ----


def test_the_image_is_slim_and_has_no_root() -> None:
    assert all(re.match(r"python:3\.\d+-slim", line) for line in of("FROM"))
    assert of("USER") == ["10001:10001"]
    after = [name for name, _ in instructions()]
    assert after.index("USER") < after.index("ENTRYPOINT")
    installs = [line for line in of("RUN") if "pip install" in line]
    assert len(installs) == 1
    assert '".[${EXTRAS}]"' in installs[0]
    assert "EXTRAS=serve" in of("ARG")
    assert "--constraint constraints.txt" in installs[0]
    assert "torch" not in re.sub(r"#.*", "", DOCKERFILE).lower()


def test_the_image_serves_where_it_says() -> None:
    [start], [arguments] = of("ENTRYPOINT"), of("CMD")
    assert json.loads(start) == ["darkroom", "serve"]
    settings = served(json.loads(arguments))
    assert settings.host == "0.0.0.0"  # noqa: S104  (within its container)
    assert of("EXPOSE") == [str(settings.port)]
    [check] = of("HEALTHCHECK")
    assert f":{settings.port}/healthz" in check
    compile(json.loads(check[check.index("[") :])[2], "healthcheck", "exec")


def test_all_that_the_image_copies_is_there_and_let_through() -> None:
    let_through = {line[1:].split("/")[0] for line in _ignored() if line.startswith("!")}
    for line in of("COPY"):
        words = [word for word in shlex.split(line) if not word.startswith("--")]
        if "--from=build" not in line:
            for name in words[:-1]:
                path = name.replace("${BUNDLE}", "models/cifar10")
                assert (ROOT / path).exists(), path
                assert path.split("/")[0] in let_through, path
    [bundle] = [line.partition("=")[2] for line in of("ARG") if line.startswith("BUNDLE=")]
    assert (ROOT / bundle / "bundle.json").is_file()


def _ignored() -> list[str]:
    return (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()


@pytest.mark.slow
def test_the_steps_of_the_image_make_a_small_server(tmp_path: Path) -> None:
    """As the image does it, in a fresh environment; needs a package index."""
    home = tmp_path / "environment"
    for step in of("RUN")[:3]:
        step = step.replace("/opt/darkroom", str(home)).replace("${EXTRAS}", "serve")
        command = step.replace("python -m venv", f"{sys.executable} -m venv")
        done = subprocess.run(shlex.split(command), cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode and "pip install" in command and "No matching distribution" in done.stderr:
            pytest.skip("there is no package index here")
        assert done.returncode == 0, done.stderr
    packages = home / "lib"
    assert sum(path.stat().st_size for path in packages.rglob("*") if path.is_file()) < 250e6
    assert not list(packages.glob("*/site-packages/torch"))
    command = [home / "bin" / "darkroom", "serve", ROOT / "models" / "cifar10", "--port", "0", "--no-access-log"]
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd="/", env=environment) as server:
        try:
            assert server.stderr is not None
            found = re.search(r"http://127\.0\.0\.1:\d+/", server.stderr.readline())
            assert found
            begun = time.monotonic()
            with urllib.request.urlopen(f"{found[0]}readyz", timeout=30) as answer:  # noqa: S310
                assert answer.status == 200
            assert time.monotonic() - begun < 30
        finally:
            server.terminate()
            server.communicate(timeout=40)
    assert server.returncode == 0


# ---- what each host is told of memory ----


def amount(text: str | int) -> float:
    """Megabytes of "2g", "2Gi" or "2gb", which mean the same."""
    found = re.fullmatch(r"(\d+)\s*([mg])(?:i|b|ib)?", str(text).lower())
    assert found, text
    return int(found[1]) * {"m": 2**20, "g": 2**30}[found[2]] / 1e6


def of_guide(name: str, pattern: str) -> str:
    """What a guide says, found by a pattern with a group."""
    [found] = re.findall(pattern, (DEPLOY / name).read_text(), re.DOTALL)
    return str(found)


def hosts() -> dict[str, tuple[list[str], str | int, float]]:
    """Arguments of the server, memory and processors, wherever a file says all of them."""
    [container] = CLUSTER["deployment"]["spec"]["template"]["spec"]["containers"]
    [machine] = FLY["vm"]
    return {
        "compose": (COMPOSE["command"], COMPOSE["mem_limit"], COMPOSE["cpus"]),
        "page": (with_place(BEHIND["page"]["command"]), BEHIND["page"]["mem_limit"], BEHIND["page"]["cpus"]),
        "kubernetes": (
            container["args"],
            container["resources"]["limits"]["memory"],
            float(container["resources"]["limits"]["cpu"]),
        ),
        "fly": (
            shlex.split(FLY["processes"]["app"]),
            machine["memory"],
            float(re.sub(r".*-(\d+)x", r"\1", machine["size"])),
        ),
        "cloud run": (
            of_guide("cloud-run.md", r"--args=(\S+)").split(","),
            of_guide("cloud-run.md", r"--memory (\S+)"),
            float(of_guide("cloud-run.md", r"--cpu (\S+)")),
        ),
    }


def with_place(command: list[str]) -> list[str]:
    """A command with names in it that Compose puts in."""
    return [word.replace("${NAME}", "photos") for word in command]


PROCESS_MEGABYTES = 150
"""The server, and each worker with a small model, as README.md has it; measured: 80 and 88."""


def needed(settings: ServeConfig, processors: float) -> float:
    """Megabytes for all that the limits let in."""
    workers = settings.workers or processors
    pictures = workers * BYTES_A_PIXEL * settings.max_megapixels
    return PROCESS_MEGABYTES * (1 + workers) + settings.max_memory_megabytes + pictures


@pytest.mark.parametrize("host", hosts())
def test_memory_is_enough_for_all_that_the_limits_let_in(host: str) -> None:
    arguments, memory, processors = hosts()[host]
    settings = served(arguments)
    assert 25 <= settings.max_megapixels <= 40, "enough for phones"
    assert amount(memory) >= needed(settings, processors)
    assert settings.max_requests_per_minute > 0


def test_the_unit_leaves_memory_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "available_cores", lambda: 4)
    for workers in (None, 1, 9):
        settings = ServeConfig(max_megapixels=30, max_memory_megabytes=200, workers=workers)
        memory = section(unit(["darkroom"], tmp_path, settings), "Service")["MemoryMax"]
        assert amount(memory) >= needed(settings, 4)
    assert "--max-megapixels 40" in (DEPLOY / "vm.md").read_text()


def test_strangers_read_no_metrics() -> None:
    """The port that leads outside is not the one of /metrics; Compose keeps both on its machine, nginx shuts it."""
    for host in ("kubernetes", "fly", "cloud run"):
        settings = served(hosts()[host][0])
        assert settings.metrics_port not in (None, settings.port), host
    assert '"--metrics-port", "0"' in (DEPLOY / "huggingface-spaces.md").read_text()


def test_a_stop_is_over_before_the_host_kills() -> None:
    assert served(hosts()["cloud run"][0]).stop_seconds < 10
    for service in (COMPOSE, BEHIND["page"]):
        assert int(service["stop_grace_period"].removesuffix("s")) > ServeConfig().stop_seconds


# ---- compose, Kubernetes, Fly ----


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_compose_files_follow_the_schema(name: str) -> None:
    schema = resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    jsonschema.validate(COMPOSE_FILES[name], json.loads(schema.read_text()))


@pytest.mark.parametrize("service", [COMPOSE, *BEHIND.values()], ids=["alone", *BEHIND])
def test_compose_keeps_the_container_shut(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["mem_limit"]
    assert service["pids_limit"]


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_compose_builds_what_is_there(name: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for service in COMPOSE_FILES[name]["services"].values():
        if build := service.get("build"):
            context = (DEPLOY / name).parent / build["context"]
            assert context.resolve() == ROOT
            assert (context / build["dockerfile"]).is_file()
            assert set(build["args"]) <= {line.partition("=")[0] for line in of("ARG")}
            assert set(build["args"].get("EXTRAS", "serve").split(",")) <= set(extras)


# ---- TensorFlow Serving ----


def test_the_page_asks_the_server_beside_it() -> None:
    page, server = BEHIND["page"], BEHIND["tensorflow-serving"]
    settings = served(with_place(page["command"]))
    assert (settings.engine, settings.tf_serving_model) == ("tf-serving", "photos")
    port = next(word.partition("=")[2] for word in server["command"] if word.startswith("--port="))
    assert settings.tf_serving_url == f"grpc://tensorflow-serving:{port}"
    assert "--model_name=${NAME:?name the folder in RUN/saved_model}" in server["command"]
    assert f":{settings.port}/readyz" in page["healthcheck"]["test"][-1]
    compile(page["healthcheck"]["test"][-1], "healthcheck", "exec")


def test_every_file_that_the_server_is_given_is_there() -> None:
    server = BEHIND["tensorflow-serving"]
    given = {word.partition("=/config/")[2] for word in server["command"] if "=/config/" in word}
    mounted = {line.split(":")[0] for line in server["volumes"] if line.startswith("./")}
    assert mounted == {f"./{name}" for name in given}
    folder = DEPLOY / "tensorflow-serving"
    assert {path.name for path in folder.iterdir() if path.suffix == ".config"} == given


def text_format(name: str) -> dict[str, Any]:
    """A file in the text format of Protocol Buffers, with values that JSON has, too."""
    words = re.findall(r'"[^"]*"|\w+|[{}:]', (DEPLOY / name).read_text())

    def block() -> dict[str, Any]:
        content: dict[str, Any] = {}
        while words and (key := words.pop(0)) != "}":
            content[key] = block() if words.pop(0) == "{" else json.loads(words.pop(0))
        return content

    return block()


def test_the_server_takes_what_the_page_sends_at_once() -> None:
    batching = text_format("tensorflow-serving/batching.config")
    assert batching == {
        "max_batch_size": {"value": served(with_place(BEHIND["page"]["command"])).tf_serving_batch},
        "batch_timeout_micros": {"value": 2000},
        "max_enqueued_batches": {"value": 16},
        "num_batch_threads": {"value": 2},
    }


def test_the_server_counts() -> None:
    monitoring = text_format("tensorflow-serving/monitoring.config")
    assert monitoring == {"prometheus_config": {"enable": True, "path": "/monitoring/prometheus/metrics"}}


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("name", sorted(set(CLUSTER) - {"kustomization"}))
def test_the_cluster_follows_the_schema(name: str, version: str) -> None:
    kubernetes_validate.validate(CLUSTER[name], version, strict=True)


def test_the_cluster_has_all_its_parts() -> None:
    assert set(CLUSTER["kustomization"]) == {"apiVersion", "kind", "resources"}
    named = set(CLUSTER["kustomization"]["resources"])
    assert named == {f"{name}.yaml" for name in CLUSTER if name != "kustomization"}
    assert {content["kind"] for content in CLUSTER.values()} >= KINDS
    for name, content in CLUSTER.items():
        assert content["apiVersion"], name
        assert name == "kustomization" or content["metadata"]["name"] == "darkroom"


@pytest.fixture
def pod() -> dict[str, Any]:
    return dict(CLUSTER["deployment"]["spec"]["template"]["spec"])


@pytest.fixture
def container(pod: dict[str, Any]) -> dict[str, Any]:
    [found] = pod["containers"]
    return dict(found)


def test_pods_have_no_rights(pod: dict[str, Any], container: dict[str, Any]) -> None:
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == int(of("USER")[0].split(":")[0])
    assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    rights = container["securityContext"]
    assert rights["allowPrivilegeEscalation"] is False
    assert rights["readOnlyRootFilesystem"] is True
    assert rights["capabilities"]["drop"] == ["ALL"]
    assert container["resources"]["limits"]["memory"]
    assert container["resources"]["requests"]["cpu"]


def test_probes_ask_what_exists_and_stops_are_long_enough(pod: dict[str, Any], container: dict[str, Any]) -> None:
    settings = served(container["args"])
    assert container["ports"] == [
        {"name": "http", "containerPort": settings.port},
        {"name": "metrics", "containerPort": settings.metrics_port},
    ]
    told = CLUSTER["deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert told["prometheus.io/port"] == str(settings.metrics_port)
    paths = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/healthz"}
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] >= pause + settings.stop_seconds + 5


def test_labels_and_ports_lead_to_the_pods() -> None:
    labels = CLUSTER["deployment"]["spec"]["template"]["metadata"]["labels"]
    assert CLUSTER["deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert CLUSTER["service"]["spec"]["selector"] == labels
    assert CLUSTER["service"]["spec"]["ports"][0]["targetPort"] == "http"
    assert CLUSTER["disruption"]["spec"]["selector"]["matchLabels"] == labels
    assert CLUSTER["network"]["spec"]["podSelector"]["matchLabels"] == labels
    [rule] = CLUSTER["ingress"]["spec"]["rules"]
    assert rule["http"]["paths"][0]["backend"]["service"] == {"name": "darkroom", "port": {"name": "http"}}


def test_the_autoscaler_counts_alone() -> None:
    spec = CLUSTER["autoscaler"]["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "darkroom"}
    assert 2 <= spec["minReplicas"] < spec["maxReplicas"]
    assert "replicas" not in CLUSTER["deployment"]["spec"]


def test_pods_ask_nobody() -> None:
    spec = CLUSTER["network"]["spec"]
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
    assert spec["egress"] == []
    assert all(rule["from"] for rule in spec["ingress"])
    assert [rule["ports"] for rule in spec["ingress"]] == [[{"port": "http"}], [{"port": "metrics"}]]


def test_limits_agree_with_those_in_front() -> None:
    usual = ServeConfig()
    size = CLUSTER["ingress"]["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"]
    assert size == f"{usual.max_request_megabytes:.0f}m"
    nginx = (DEPLOY / "nginx.conf").read_text()
    assert f"client_max_body_size {usual.max_request_megabytes:.0f}m;" in nginx
    assert f"server 127.0.0.1:{usual.port};" in nginx
    assert nginx.count("{") == nginx.count("}")
    assert "proxy_request_buffering off;" in nginx
    annotations = CLUSTER["ingress"]["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/proxy-request-buffering"] == "off"
    for header in (
        "Host $host",
        "X-Forwarded-For $remote_addr",
        "X-Forwarded-Proto $scheme",
        "X-Request-Id $request_id",
    ):
        assert f"proxy_set_header {header};" in nginx


def test_fly_starts_a_server_that_it_finds() -> None:
    settings = served(shlex.split(FLY["processes"]["app"]))
    assert settings.port == FLY["http_service"]["internal_port"]
    assert settings.metrics_port == FLY["metrics"]["port"]
    assert settings.proxy_hops == 2
    assert FLY["http_service"]["force_https"] is True
    assert FLY["http_service"]["checks"][0]["path"] == "/readyz"
    assert FLY["http_service"]["concurrency"]["hard_limit"] <= FEWEST_THREADS + settings.max_queue
    assert int(FLY["kill_timeout"].removesuffix("s")) > settings.stop_seconds
    assert (DEPLOY / FLY["build"]["dockerfile"]).is_file()


# ---- guides ----

GUIDES = [*sorted(DEPLOY.glob("*.md")), ROOT / "docs" / "serving.md"]


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
def test_guides_name_what_exists(path: Path) -> None:
    text = path.read_text()
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (path.parent / link).exists(), link
    known = {f"--{name.replace('_', '-')}" for name in ServeConfig.__dataclass_fields__} | {"--no-access-log"}
    known |= {"--print-systemd-unit"}
    ours = set(re.findall(r"(?<![\w-])--(?:max|trusted|proxy|stop|api|allow-origins|frame|samples|print)[\w-]*", text))
    foreign = {"--max-instances"}
    assert ours - foreign <= known


def test_every_limit_is_in_the_table() -> None:
    text = (ROOT / "docs" / "serving.md").read_text()
    limits = {name for name in ServeConfig.__dataclass_fields__ if name.startswith("max_")}
    for name in limits | {"stop_seconds"}:
        option, default = f"--{name.replace('_', '-')}", getattr(ServeConfig(), name)
        assert re.search(rf"^\| `{option}` \| {default:g}\b", text, re.MULTILINE), option


@pytest.fixture
def example() -> str:
    """The program in docs/serving.md."""
    [found] = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "serving.md").read_text(), re.DOTALL)
    return str(found)


def test_the_example_is_short_and_works(example: str, finished_run: Finished, tmp_path: Path) -> None:
    assert len([line for line in example.splitlines() if line.strip()]) <= 20
    sample = next(finished_run.run.samples.iterdir())
    with OnnxRuntimeEngine.open(finished_run.run.bundle, threads=1) as engine, serving(engine) as server:
        changed = example.replace("http://127.0.0.1:8000", server.url.rstrip("/"))
        (tmp_path / "example.py").write_text(changed)
        command = [sys.executable, "-W", "ignore", tmp_path / "example.py", sample]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "'confidence'" in done.stdout


# ---- systemd ----


def section(text: str, name: str) -> dict[str, str]:
    """The settings of a section of a unit."""
    inside = text.partition(f"[{name}]\n")[2].partition("\n[")[0]
    return dict(line.split("=", 1) for line in inside.splitlines() if "=" in line and not line.startswith("#"))


def test_the_unit_runs_this_very_server(tmp_path: Path) -> None:
    settings = ServeConfig(port=9000, trusted_proxy="127.0.0.1", api_keys=tmp_path / "my keys", access_log=False)
    text = unit(["/opt/darkroom/bin/darkroom"], tmp_path, settings)
    words = shlex.split(section(text, "Service")["ExecStart"])
    assert words[:3] == ["/opt/darkroom/bin/darkroom", "serve", str(tmp_path.resolve())]
    assert served(words[2:]) == replace(settings, api_keys=(tmp_path / "my keys").resolve())
    assert section(text, "Install") == {"WantedBy": "multi-user.target"}


def test_the_unit_keeps_away_what_is_not_needed(tmp_path: Path) -> None:
    service = section(unit(["darkroom"], tmp_path, ServeConfig()), "Service")
    assert service["DynamicUser"] == service["NoNewPrivileges"] == service["PrivateTmp"] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""
    assert int(service["TimeoutStopSec"]) > ServeConfig().stop_seconds
    assert service["KillMode"] == "mixed", "workers outlive the signal until what has begun is answered"
    assert int(service["LimitNOFILE"]) > ServeConfig().max_connections
    low = section(unit(["darkroom"], tmp_path, ServeConfig(port=443)), "Service")
    assert low["AmbientCapabilities"] == "CAP_NET_BIND_SERVICE"


def test_the_signal_of_a_host_loses_nothing_that_has_begun(folder: Path) -> None:
    """The command as hosts start and stop it; large pictures, so that most of them still wait when the signal comes."""
    picture = encoded(Image.new("RGB", (4000, 4000), (240, 10, 10)), "PNG")
    command = [sys.executable, "-m", "darkroom", "serve", folder, "--port", "0", "--no-access-log"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server, ThreadPoolExecutor(16) as pool:
        try:
            assert server.stderr is not None
            found = re.search(r"http://127\.0\.0\.1:\d+/", server.stderr.readline())
            assert found
            asked = [pool.submit(asked_for, f"{found[0]}api/v1/predict", picture) for _ in range(16)]
            until_connected(f"{found[0]}metrics", 16)
            server.send_signal(signal.SIGTERM)
            signalled = time.monotonic()
            answers = [future.result(60) for future in asked]
            assert [label for label, _ in answers] == ["red"] * 16
            assert sum(moment > signalled for _, moment in answers) >= 2, "they were under way"
            server.communicate(timeout=40)
        finally:
            server.kill()
    assert server.returncode == 0


def asked_for(url: str, picture: bytes) -> tuple[str, float]:
    """The label that a server gives a picture, and when."""
    request = urllib.request.Request(url, picture, {"Content-Type": "image/png"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        return json.load(answer)["predictions"][0]["label"], time.monotonic()


def until_connected(metrics: str, number: int) -> None:
    """Wait until so many clients were taken in, those that are answered already included."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with urllib.request.urlopen(metrics, timeout=30) as answer:  # noqa: S310
            text = answer.read().decode()
        counted = r"^darkroom_requests_total\{[^}]*predict[^}]*\} (\S+)"
        done = sum(map(float, re.findall(counted, text, re.MULTILINE)))
        [held] = re.findall(r"^darkroom_connections (\S+)", text, re.MULTILINE)
        if done + float(held) - 1 >= number:  # this very connection is one of them
            return
        time.sleep(0.02)
    raise AssertionError(text)


def test_odd_paths_stay_one_word(tmp_path: Path) -> None:
    odd = tmp_path / 'a "b" $c %d'
    odd.mkdir()
    command = section(unit(["darkroom"], odd, ServeConfig()), "Service")["ExecStart"]
    assert command.endswith('/a \\"b\\" $$c %%d"')


def test_the_command_prints_it(finished_run: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["serve", str(finished_run.run.folder), "--port", "8001", "--print-systemd-unit"])
    assert not end.value.code
    service = section(capsys.readouterr().out, "Service")
    words = shlex.split(service["ExecStart"])
    assert Path(words[0]).is_absolute()
    assert str(finished_run.run.bundle.resolve()) in words
    assert words[words.index("--port") + 1] == "8001"
    assert words[words.index("--samples") + 1] == str(finished_run.run.samples.resolve())
