"""Backbones: found by name or folder, never silently random, with their own preprocessing, and exact when saved."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save_file

from backbone_folders import write_backbone
from darkroom.errors import ModelError, UsageError
from darkroom.models import backbones
from darkroom.models.backbones import Backbone, Description
from darkroom.models.summary import summarise

TINY = ("test_resnet", "test_vit", "test_convnext", "test_efficientnet", "test_byobnet")
PLAIN = Description(224, False, 0.875, "bicubic", (0.0, 0.0, 0.0), (255.0, 255.0, 255.0))


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_backbone(tmp_path_factory.mktemp("weights") / "tiny")


def network_of(
    given: str, *, classes: int = 3, seed: int = 0, random_weights: bool = False, side: int = 64
) -> Backbone:
    found = backbones.find(given)
    torch.manual_seed(seed)
    return backbones.pretrained(
        found, found.architecture(image_size=side, classes=classes), random_weights=random_weights
    )


def rewrite(given: str, **changes: object) -> None:
    """Change config.json of a folder."""
    path = Path(given.removeprefix("local-dir:")) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("name", "near"), [("resnet51", "resnet50"), ("mobilnetv2_100", "mobilenetv2_100"), ("qqqqqqqq", "huggingface.co")]
)
def test_an_unknown_name_is_told_with_its_neighbours(name: str, near: str) -> None:
    with pytest.raises(ModelError, match=f"no network {name}") as caught:
        backbones.find(name)
    assert near in str(caught.value)


@pytest.mark.parametrize("name", ["resnet18.bogus", "test_resnet.in1k"])
def test_unknown_weights_of_a_known_network_are_told_with_those_that_are(name: str) -> None:
    base, _, tag = name.partition(".")
    with pytest.raises(ModelError, match=rf"no weights {tag} of {base}: take one of {base}\.") as caught:
        backbones.find(name)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_none_of_timms_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="darkroom weights fetch"):
        backbones.find(f"local-dir:{tmp_path / 'nowhere'}")
    (tmp_path / "config.json").write_text('{"architecture": "resnet50"}')
    with pytest.raises(ModelError, match="pretrained_cfg"):
        backbones.find(f"local-dir:{tmp_path}")


def test_a_folder_describes_its_own_preprocessing(given: str) -> None:
    found = backbones.find(given)
    assert found.title == "tiny"
    assert found.name == "test_resnet"
    assert found.description.mean == pytest.approx((127.5, 102.0, 76.5))
    contract = found.description.preprocessing(64)
    assert (contract.width, contract.crop_fraction, contract.interpolation) == (64, 0.9, "bicubic")


@pytest.mark.parametrize(
    ("shorter", "side"), [(500, 224), (56, 224), (50, 224), (32, 128), (28, 128), (24, 96), (8, 64), (1, 64)]
)
def test_small_pictures_are_enlarged_four_times_at_most(shorter: float, side: int) -> None:
    assert PLAIN.suits(shorter) == side


def test_a_network_of_one_size_gets_that_size() -> None:
    fixed = Description(224, True, 0.9, "bicubic", PLAIN.mean, PLAIN.std)
    assert fixed.suits(8) == 224


def test_some_networks_need_larger_pictures() -> None:
    assert backbones.find("inception_v3").description.suits(8) == 96
    assert backbones.find("bat_resnext26ts").description.suits(8) == 256, "as its weights say"
    assert backbones.find("test_resnet").description.suits(8) == 64


def test_too_few_pixels_are_told_in_one_line() -> None:
    found = backbones.find("inception_v3")
    backbones.require_side(found, 96)
    with pytest.raises(
        UsageError, match=r"inception_v3 cannot look at pictures of 64 pixels .*--image-size 299"
    ) as caught:
        backbones.require_side(found, 64)
    assert "\n" not in str(caught.value)


def test_pictures_are_stretched_for_weights_that_saw_them_so(given: str, tmp_path: Path) -> None:
    squashed = write_backbone(tmp_path / "tiny")
    config = json.loads((tmp_path / "tiny" / "config.json").read_text())["pretrained_cfg"]
    rewrite(squashed, pretrained_cfg=config | {"crop_mode": "squash"})
    contract = backbones.find(squashed).description.preprocessing(64)
    assert (contract.resize, contract.crop_fraction) == ("stretch", 1.0)
    assert backbones.find(given).description.preprocessing(64).resize == "cover"
    rewrite(squashed, pretrained_cfg=config | {"crop_mode": "border"})
    with pytest.raises(ModelError, match="crop_mode border, and darkroom knows only center and squash"):
        backbones.find(squashed)


@pytest.mark.parametrize(
    "change", [{"input_size": [1, 64, 64]}, {"input_size": [3, 64, 128]}, {"mean": [0.5]}, {"std": [0.5]}]
)
def test_weights_for_other_than_square_colour_pictures_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    given = write_backbone(tmp_path / "tiny")
    config = json.loads((tmp_path / "tiny" / "config.json").read_text())["pretrained_cfg"]
    rewrite(given, pretrained_cfg=config | change)
    with pytest.raises(ModelError, match="square ones of three colours: take another network"):
        backbones.find(given)


def test_small_pictures_lose_no_edge() -> None:
    assert PLAIN.preprocessing(128).crop_fraction == 1
    assert PLAIN.preprocessing(224).crop_fraction == 0.875


def test_weights_are_loaded_and_normalised_inside(given: str) -> None:
    network = network_of(given).eval()
    body = backbones.timm.create_model(given, pretrained=True, num_classes=0).eval()
    pictures = torch.rand(2, 3, 64, 64) * 255
    mean = torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1)
    std = torch.tensor(body.pretrained_cfg["std"]).view(1, 3, 1, 1)
    with torch.no_grad():
        expected = body((pictures / 255 - mean) / std)
        torch.testing.assert_close(network.features(pictures), expected, rtol=1e-4, atol=1e-5)
        assert network(pictures).abs().max() == 0, "the last layer knows nothing yet"


def test_weights_are_never_random_unless_asked_for(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "_reachable", lambda address: False)
    monkeypatch.setattr(backbones, "_stored", lambda *_: False)
    monkeypatch.setattr(backbones.urllib.request, "getproxies", lambda: {"no": "localhost"})
    with pytest.raises(ModelError, match="cannot be reached") as caught:
        network_of("resnet18")
    for part in ("darkroom weights fetch resnet18 --to DIR", "local-dir:DIR", "weights are looked for in"):
        assert part in str(caught.value)
    one, other = network_of(given, random_weights=True), network_of(given, random_weights=True, seed=1)
    assert backbones.weights_hash(one.body) != backbones.weights_hash(other.body)


def test_behind_a_proxy_the_download_itself_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def unasked(address: object) -> bool:
        raise AssertionError("a direct connection says nothing of a proxy")

    monkeypatch.setattr(backbones, "_reachable", unasked)
    monkeypatch.setattr(backbones, "_stored", lambda *_: False)
    monkeypatch.setattr(backbones.urllib.request, "getproxies", lambda: {"https": "http://proxy:3128", "no": "local"})
    backbones.require_weights(backbones.find("resnet18"))


@pytest.mark.parametrize(
    ("filename", "stored", "there"),
    [
        (None, "model.safetensors", True),
        (None, "pytorch_model.bin", True),
        (None, "other.bin", False),
        ("open_clip_pytorch_model.bin", "open_clip_model.safetensors", True),
        ("open_clip_pytorch_model.bin", "model.safetensors", False),
        ("eva.pt", "eva.pt", True),
    ],
)
def test_stored_weights_are_found_by_the_name_that_timm_loads(
    monkeypatch: pytest.MonkeyPatch, filename: str | None, stored: str, there: bool
) -> None:
    def cached(repository: str, name: str) -> str | None:
        return f"/cache/{name}" if (repository, name) == ("timm/some", stored) else None

    published = backbones.PretrainedCfg(hf_hub_id="timm/some", hf_hub_filename=filename)
    monkeypatch.setattr(backbones.huggingface_hub, "try_to_load_from_cache", cached)
    monkeypatch.setattr(backbones, "_published", lambda name: published)
    monkeypatch.setattr(backbones, "_within_reach", lambda: False)
    found = backbones.Found("resnet18", "resnet18", {}, PLAIN)
    if there:
        backbones.require_weights(found)
    else:
        with pytest.raises(ModelError, match="are not on this machine"):
            backbones.require_weights(found)


def test_a_network_without_published_weights_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "_reachable", lambda address: True)
    nothing = backbones.PretrainedCfg()
    monkeypatch.setattr(backbones, "_published", lambda name: nothing)
    found = backbones.Found("resnet18", "resnet18", {}, PLAIN)
    with pytest.raises(ModelError, match="nobody has published weights of resnet18: take one of resnet18"):
        backbones.pretrained(found, found.architecture(image_size=64, classes=2))


def test_damaged_weights_are_told_in_one_line(tmp_path: Path) -> None:
    given = write_backbone(tmp_path / "tiny")
    (tmp_path / "tiny" / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        network_of(given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["test_resnet", "dla46_c"])  # timm loads the latter without minding what is missing
def test_weights_by_other_names_are_not_replaced_by_random_ones(name: str, tmp_path: Path) -> None:
    given = write_backbone(tmp_path / "tiny", name)
    path = tmp_path / "tiny" / "model.safetensors"
    save_file({f"model.{key}": value for key, value in load(path.read_bytes()).items()}, path)
    with pytest.raises(ModelError, match=r"cannot be loaded \(.*Missing key") as caught:
        network_of(given)
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    given = write_backbone(tmp_path / "tiny")
    rewrite(given, architecture="test_efficientnet")
    with pytest.raises(ModelError, match="cannot be loaded"):
        network_of(given)


def test_a_folder_without_a_last_layer_will_do(tmp_path: Path) -> None:
    given = write_backbone(tmp_path / "tiny", classes=0)
    written = load((tmp_path / "tiny" / "model.safetensors").read_bytes())
    loaded = network_of(given).body.state_dict()
    assert loaded.keys() == written.keys()
    assert all(torch.equal(loaded[name], value) for name, value in written.items())


@pytest.mark.parametrize("name", TINY)
def test_without_its_last_layer_a_network_is_what_config_json_builds(name: str, tmp_path: Path) -> None:
    found = backbones.find(write_backbone(tmp_path / "tiny", name, side=160))
    architecture = found.architecture(image_size=160, classes=3)
    network = backbones.pretrained(found, architecture).eval()
    again = backbones.build(architecture, mean=(0, 0, 0), std=(1, 1, 1)).eval()
    again.load_state_dict(network.state_dict())
    pictures = torch.rand(1, 3, 160, 160) * 255
    with torch.no_grad():
        assert torch.equal(again.features(pictures), network.features(pictures))


@pytest.mark.parametrize("name", TINY)
def test_the_table_of_layers_has_all_parameters(name: str) -> None:
    network = network_of(name, random_weights=True, side=160)
    rows = summarise(network, 160)
    assert sum(row.parameters for row in rows) == sum(value.numel() for value in network.parameters())
    assert any(row.kind == "fully connected" for row in rows)


def test_work_is_counted_at_every_token() -> None:
    rows = {row.name: row for row in summarise(network_of("test_vit", random_weights=True, side=160), 160)}
    tokens = 10 * 10 + 1
    assert rows["body.blocks.0.mlp.fc1"].multiply_adds == tokens * 64 * 192
    assert rows["body"].parameters == tokens * 64 + 64, "places and class token"
    assert rows["body"].output_shape == ()


def test_batch_normalisation_learns_where_nothing_was_learned_yet(given: str) -> None:
    network = network_of(given, random_weights=True).train()
    before = {name: value.clone() for name, value in network.body.named_buffers()}
    network(torch.rand(4, 3, 64, 64) * 255)
    assert before.keys() == {name for name, _ in network.body.named_buffers()}
    assert not any(torch.equal(value, before[name]) for name, value in network.body.named_buffers())


def test_batch_normalisation_keeps_its_statistics_in_training(given: str) -> None:
    network = network_of(given).train()
    before = {name: value.clone() for name, value in network.named_buffers()}
    network(torch.rand(4, 3, 64, 64) * 255)
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())
    assert network.training


def test_the_hash_is_that_of_the_weights(given: str) -> None:
    one, same = network_of(given), network_of(given, seed=1)
    assert backbones.weights_hash(one.body) == backbones.weights_hash(same.body)
    with torch.no_grad():
        next(same.body.parameters()).view(-1)[0] += 1e-6
    assert backbones.weights_hash(one.body) != backbones.weights_hash(same.body)


def test_it_is_built_again_from_config_json(given: str) -> None:
    network = network_of(given).eval()
    architecture = backbones.find(given).architecture(image_size=64, classes=3, dropout=0.1)
    again = backbones.Architecture.from_json(architecture.to_json())
    rebuilt = backbones.build(again, mean=(0, 0, 0), std=(1, 1, 1)).eval()
    rebuilt.load_state_dict(network.state_dict())
    pictures = torch.rand(2, 3, 64, 64) * 255
    with torch.no_grad():
        assert torch.equal(rebuilt.features(pictures), network.features(pictures))


def test_fetched_weights_are_a_folder_that_works(given: str, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "copy"
    backbones.save(backbones.find(given), folder)
    one, other = network_of(given), network_of(f"local-dir:{folder}")
    assert backbones.weights_hash(one.body) == backbones.weights_hash(other.body)
    assert [path.name for path in folder.parent.iterdir()] == ["copy"]
    with pytest.raises(UsageError, match="holds something already"):
        backbones.save(backbones.find(given), folder)


def test_timm_can_be_imported_beside_a_torchvision_for_another_torch() -> None:
    """In a process of its own, since an import happens once."""
    script = (
        "import sys, types\n"
        "import torch\n"
        "class Broken:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torchvision' and not declared():\n"
        "            raise RuntimeError('operator torchvision::nms does not exist')\n"
        "def declared():\n"
        "    return bool(torch._C._dispatch_has_kernel_for_dispatch_key) and 'nms' in dir(torch.ops.torchvision) or "
        "any(name.startswith('torchvision::nms') for name in torch._C._dispatch_get_all_op_names())\n"
        "sys.meta_path.insert(0, Broken())\n"
        "from darkroom.models import torchvision_operators\n"
        "torchvision_operators.declare()\n"
        "assert declared()\n"
        "from darkroom.models import backbones\n"
        "print(backbones.timm.__version__)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_shapes_of_features(given: str) -> None:
    network = network_of(given, classes=5).eval()
    with torch.no_grad():
        maps = network.maps(torch.zeros(2, 3, 64, 64))
        assert maps.ndim == 4
        assert network.pooled(maps).shape == (2, network.head.in_features)
        assert network.classified(maps).shape == (2, 5)
    assert np.prod(network.head.weight.shape) == 5 * network.head.in_features
