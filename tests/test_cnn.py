"""The network: its depth, width, layer table, normalisation, and what is stored of it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from darkroom.errors import RunError
from darkroom.models import cnn
from darkroom.models.inference import logits_of
from darkroom.models.stored import load_network, save_network
from darkroom.models.summary import summarise
from darkroom.runs import Run
from training import CPU


@pytest.mark.parametrize(
    ("image_size", "stem", "widths"),
    [
        (8, "convolution", (48, 256)),
        (15, "convolution", (48, 256)),
        (16, "whitening", (48, 256)),
        (32, "whitening", (48, 256, 256)),
        (64, "whitening", (48, 256, 256, 256)),
        (65, "convolution", (64, 128, 256)),
        (128, "convolution", (64, 128, 256, 256)),
        (224, "convolution", (64, 128, 256, 256, 256)),
    ],
)
def test_depth_follows_the_picture(image_size: int, stem: str, widths: tuple[int, ...]) -> None:
    architecture = cnn.design(image_size=image_size, classes=10, pictures=50_000)
    assert (architecture.stem, architecture.widths) == (stem, widths)


def test_width_follows_the_data_and_the_wish() -> None:
    few = cnn.design(image_size=32, classes=10, pictures=300)
    many = cnn.design(image_size=32, classes=10, pictures=45_000)
    double = cnn.design(image_size=32, classes=10, pictures=45_000, width=2)
    assert few.widths == (48, 128, 128)
    assert many.widths == (48, 256, 256)
    assert double.widths == (96, 512, 512)
    assert double.stem_width == many.stem_width == 24  # whatever a 2×2 patch holds, and its negative
    photos = [cnn.design(image_size=128, classes=10, pictures=45_000, width=width) for width in (1, 2)]
    assert [photo.stem_width for photo in photos] == [32, 64]


@settings(max_examples=6, deadline=None)
@given(
    size=st.integers(8, 224),
    width=st.sampled_from([0.05, 0.125, 0.3]),
    classes=st.integers(2, 7),
    convolutions=st.integers(2, 4),
)
def test_any_size_trains_and_answers_for_every_class(size: int, width: float, classes: int, convolutions: int) -> None:
    network = cnn.build(
        cnn.design(image_size=size, classes=classes, pictures=100, width=width, convolutions=convolutions)
    )
    pictures = torch.rand(2, 3, size, size) * 255
    cnn.fit_whitening(network, [pictures])
    answer = network(pictures)  # in training mode, where normalisation needs some values
    assert answer.shape == (2, classes)
    answer.sum().backward()
    learned = [p for p in network.parameters() if p.requires_grad]
    assert all(bool(p.grad is not None and p.grad.isfinite().all()) for p in learned)
    assert all(p.shape[0] % 8 == 0 for p in network.parameters() if p.ndim == 4)


def test_layer_table_against_hand_computed_numbers() -> None:
    architecture = cnn.Architecture(
        image_size=16,
        classes=5,
        stem="whitening",
        stem_width=24,
        widths=(16, 24),
        convolutions=2,
        dropout=0.1,
        mirrored=False,
    )
    rows = {row.name: row for row in summarise(cnn.build(architecture), 16)}
    by_hand = {  # name: (output shape, parameters, multiply-adds)
        "normalise": ((3, 16, 16), 0, 0),
        "stem.0": ((24, 15, 15), 24 * 12, 24 * 12 * 225),
        "stem.1": ((24, 15, 15), 0, 0),
        "stage1.down.0": ((16, 15, 15), 16 * 216, 16 * 216 * 225),
        "stage1.down.1": ((16, 7, 7), 0, 0),
        "stage1.down.2": ((16, 7, 7), 32, 0),
        "stage1.down.3": ((16, 7, 7), 0, 0),
        "stage1.rest.0": ((16, 7, 7), 16 * 144, 16 * 144 * 49),
        "stage1.rest.1": ((16, 7, 7), 32, 0),
        "stage1.rest.2": ((16, 7, 7), 0, 0),
        "stage2.down.0": ((24, 7, 7), 24 * 144, 24 * 144 * 49),
        "stage2.down.1": ((24, 3, 3), 0, 0),
        "stage2.down.2": ((24, 3, 3), 48, 0),
        "stage2.down.3": ((24, 3, 3), 0, 0),
        "stage2.rest.0": ((24, 3, 3), 24 * 216, 24 * 216 * 9),
        "stage2.rest.1": ((24, 3, 3), 48, 0),
        "stage2.rest.2": ((24, 3, 3), 0, 0),
        "pool": ((24, 1, 1), 0, 0),
        "flatten": ((24,), 0, 0),
        "dropout": ((24,), 0, 0),
        "head": ((5,), 24 * 5 + 5, 24 * 5),
    }
    assert {name: (row.output_shape, row.parameters, row.multiply_adds) for name, row in rows.items()} == by_hand
    assert list(rows) == list(by_hand)  # in the order in which they run


class Everywhere(nn.Module):
    """A fully connected layer at every pixel, twice, behind a scale of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.linear = nn.Linear(3, 3)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.linear(self.linear(pictures.permute(0, 2, 3, 1) * self.scale)).mean((1, 2))


def test_layer_table_of_what_runs_in_many_places() -> None:
    rows = summarise(nn.Sequential(Everywhere()), 8)
    assert [(row.name, row.output_shape, row.parameters, row.multiply_adds) for row in rows] == [
        ("0.linear", (8, 8, 3), 12, 8 * 8 * 9),
        ("0.linear", (8, 8, 3), 0, 8 * 8 * 9),
        ("0", (3,), 3, 0),
    ]


def test_whitening_makes_patches_uncorrelated() -> None:
    random = np.random.default_rng(0)
    smooth = np.cumsum(np.cumsum(random.normal(size=(64, 3, 20, 20)), axis=2), axis=3)  # neighbours are alike
    pictures = torch.from_numpy(smooth - smooth.mean()).float()
    network = cnn.build(cnn.design(image_size=20, classes=2, pictures=64), std=(float(smooth.std()),) * 3)
    assert not network.get_submodule("stem.0").weight.any()
    cnn.fit_whitening(network, pictures.split(10))  # a few pictures at a time
    both = torch.cat([pictures, pictures.flip(3)])
    responses = network.get_submodule("stem.0")(network.get_submodule("normalise")(both))
    first = responses[:, :12].detach().permute(1, 0, 2, 3).reshape(12, -1).double()
    covariance = first @ first.T / first.shape[1]
    diagonal = covariance.diagonal()
    assert (covariance - torch.diag(diagonal)).abs().max() < 0.01
    assert diagonal.max() <= 1.0001
    assert (diagonal > 0.5).sum() >= 6  # the rest varies less than the floor of the variances
    torch.testing.assert_close(responses[:, 12:], -responses[:, :12])


def test_whitening_of_grey_pictures_is_finite() -> None:
    pictures = torch.rand(8, 1, 16, 16).expand(-1, 3, -1, -1) * 255  # only 4 of 12 directions vary
    network = cnn.build(cnn.design(image_size=16, classes=2, pictures=8))
    cnn.fit_whitening(network, [pictures])
    assert network(pictures).isfinite().all()


def test_other_stems_are_left_alone_by_whitening() -> None:
    network = cnn.build(cnn.design(image_size=8, classes=2, pictures=8))
    before = network.get_submodule("stem.0").weight.clone()
    cnn.fit_whitening(network, [torch.rand(8, 3, 8, 8)])
    assert torch.equal(network.get_submodule("stem.0").weight, before)


def test_filters_begin_as_the_identity() -> None:
    network = cnn.build(cnn.design(image_size=32, classes=10, pictures=50_000))
    filters = network.get_submodule("stage1.down.0").weight  # (48, 24, 3, 3)
    features = torch.rand(1, 24, 9, 9)
    torch.testing.assert_close(torch.nn.functional.conv2d(features, filters, padding=1)[:, :24], features)
    assert filters[24:].std() > 0  # the others look for something


@pytest.mark.parametrize("stride", [1, 2])
def test_a_mirrored_convolution_by_hand(stride: int) -> None:
    torch.manual_seed(0)
    partners = torch.tensor([0, 2, 1, 3])
    layer = cnn.Mirrored(partners, 6, stride=stride)
    assert layer.weight.shape == (3, 4, 3, 3)
    picture = torch.rand(1, 4, 7, 7)
    features, mirrored = layer(picture), layer(picture.flip(3)[:, partners])
    halves = torch.cat([features[:, 3:], features[:, :3]], dim=1)
    torch.testing.assert_close(mirrored, halves.flip(3))
    torch.testing.assert_close(features[:, :3], torch.nn.functional.conv2d(picture, layer.weight, None, stride, 1))
    torch.testing.assert_close(layer.written_out()(picture), features)


def test_what_is_written_out_holds_no_pooling_that_exporters_lack() -> None:
    """PyTorch 2.11 exports no adaptive max pooling as ONNX."""
    torch.manual_seed(0)
    network = cnn.build(cnn.design(image_size=16, classes=3, pictures=100, width=0.25)).eval()
    pictures = 255 * torch.rand(4, 3, 16, 16)
    expected = network(pictures)
    assert torch.equal(cnn.written_out(network)(pictures), expected)
    assert not [module for module in network.modules() if isinstance(module, torch.nn.AdaptiveMaxPool2d)]


@pytest.mark.parametrize(("size", "stem"), [(8, "convolution"), (17, "whitening")])
def test_mirror_images_have_the_same_features_in_exchanged_halves(size: int, stem: str) -> None:
    """Exactly, where no size is odd: 8, 4, 2 pixels, and behind a whitening stem 16, 8, 4."""
    torch.manual_seed(0)
    architecture = cnn.design(image_size=size, classes=5, pictures=100, width=0.25, convolutions=3, mirrored=True)
    assert architecture.stem == stem
    network = cnn.build(architecture)
    cnn.fit_whitening(network, [torch.rand(50, 3, size, size) * 255])
    pictures = torch.rand(4, 3, size, size) * 255
    features = network[: list(dict(network.named_children())).index("head")].eval()
    one, other = features(pictures), features(pictures.flip(3))
    torch.testing.assert_close(other, one.roll(one.shape[1] // 2, 1), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(other, one)


def test_the_stem_knows_its_partners() -> None:
    architecture = cnn.design(image_size=32, classes=2, pictures=100, mirrored=True)
    network = cnn.build(architecture)
    cnn.fit_whitening(network, [torch.rand(50, 3, 32, 32) * 255])
    pictures, stem = torch.rand(2, 3, 32, 32) * 255, network.get_submodule("stem")
    partners = network.get_submodule("stage1.down.0").partners
    torch.testing.assert_close(stem(pictures.flip(3)), stem(pictures).flip(3)[:, partners], rtol=1e-4, atol=1e-4)


def test_a_mirrored_network_is_stored_by_halves_and_loaded_whole(tmp_path: Path) -> None:
    architecture = cnn.design(image_size=32, classes=3, pictures=100, width=0.25, mirrored=True)
    network = cnn.build(architecture).eval()
    cnn.fit_whitening(network, [torch.rand(50, 3, 32, 32) * 255])
    run = Run(tmp_path)
    write_architecture(run, architecture)
    save_network(run, network.state_dict())
    loaded = load_network(run)
    assert not any(isinstance(module, cnn.Mirrored) for module in loaded.modules())
    pictures = torch.rand(5, 3, 32, 32) * 255
    torch.testing.assert_close(loaded(pictures), network(pictures))
    learned, whole = (sum(p.numel() for p in net.parameters() if p.ndim == 4) for net in (network, loaded))
    stem = 24 * 12
    assert whole - stem == 2 * (learned - stem)


def test_mirrored_filters_behind_the_stem_begin_by_passing_all_on() -> None:
    network = cnn.build(cnn.design(image_size=32, classes=10, pictures=50_000, mirrored=True))
    filters = network.get_submodule("stage1.down.0").filters()  # (48, 24, 3, 3)
    passed = {int(filter.flatten(1).sum(1).argmax()) for filter in filters if (filter != 0).sum() == 1}
    assert passed == set(range(24))


def test_mirrored_filters_begin_as_the_identity() -> None:
    network = cnn.build(cnn.design(image_size=32, classes=10, pictures=50_000, mirrored=True))
    filters = network.get_submodule("stage3.rest.0").filters()
    features = torch.rand(1, 256, 5, 5)
    torch.testing.assert_close(torch.nn.functional.conv2d(features, filters, padding=1), features)


def test_three_convolutions_have_a_way_around_them() -> None:
    torch.manual_seed(0)
    two, three = (cnn.Stage(4, 8, convolutions).eval() for convolutions in (2, 3))
    features = torch.rand(2, 4, 6, 6)
    torch.testing.assert_close(two(features), two.rest(two.down(features)))
    torch.testing.assert_close(three(features), three.rest(three.down(features)) + three.down(features))


def test_photos_are_halved_by_the_stem() -> None:
    network = cnn.build(cnn.design(image_size=97, classes=2, pictures=100, width=0.25))
    rows = {row.name: row for row in summarise(network, 97)}
    assert rows["stem.0"].output_shape[1:] == (49, 49)
    assert rows["stem.0"].multiply_adds == 8 * 27 * 49 * 49
    assert rows["stage1.down.1"].output_shape[1:] == (24, 24)


def test_summary_leaves_the_network_as_it_was() -> None:
    network = cnn.build(cnn.design(image_size=8, classes=2, pictures=10)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    summarise(network, 8)
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_normalisation_is_part_of_the_network() -> None:
    architecture = cnn.design(image_size=8, classes=2, pictures=10, width=0.25)
    network = cnn.build(architecture, mean=(10.5, 20.25, 30.0), std=(2.0, 4.0, 8.5))
    picture = torch.full((1, 3, 8, 8), 30.0)
    wanted = torch.tensor([(30 - 10.5) / 2, (30 - 20.25) / 4, 0.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    torch.testing.assert_close(network[0](picture), wanted)


def test_architecture_survives_json() -> None:
    architecture = cnn.design(image_size=40, classes=3, pictures=1000, dropout=0.25)
    assert cnn.Architecture.from_json(architecture.to_json()) == architecture


def write_architecture(run: Run, architecture: cnn.Architecture) -> None:
    network = {"kind": "cnn", "architecture": architecture.to_json()}
    run.write_config({"data": {}, "training": {"result": {}}, "network": network})


def stored_run(folder: Path) -> tuple[Run, torch.nn.Module]:
    architecture = cnn.design(image_size=8, classes=3, pictures=10, width=0.25)
    # Statistics of real pictures are not whole numbers; none of their digits may be lost on the way.
    network = cnn.build(architecture, mean=(120.7, 99.3, 64.9), std=(61.4, 59.6, 70.2)).eval()
    run = Run(folder)
    write_architecture(run, architecture)
    save_network(run, network.state_dict())
    return run, network


def test_stored_network_answers_as_the_trained_one(tmp_path: Path) -> None:
    run, network = stored_run(tmp_path)
    loaded = load_network(run)
    assert not loaded.training
    pictures = torch.rand(5, 3, 8, 8) * 255
    assert torch.equal(loaded(pictures), network(pictures))


def test_stored_network_that_is_missing_or_damaged(tmp_path: Path) -> None:
    run, _ = stored_run(tmp_path)
    run.weights.write_bytes(run.weights.read_bytes()[:-100])
    with pytest.raises(RunError, match=r"model\.safetensors cannot be read .* --overwrite") as caught:
        load_network(run)
    assert "\n" not in str(caught.value)
    run.weights.unlink()
    with pytest.raises(RunError, match=r"has not ended: .* --resume"):
        load_network(run)


def test_a_run_of_another_version_is_told_in_one_line(tmp_path: Path) -> None:
    run, _ = stored_run(tmp_path)
    content = run.read_config()
    content["network"]["architecture"]["stem_stride"] = 1
    run.write_config(content)
    with pytest.raises(
        RunError, match=r"does not know \(.*stem_stride.*\): use the version that made the run"
    ) as caught:
        load_network(run)
    assert "\n" not in str(caught.value)


def test_stored_network_of_another_architecture(tmp_path: Path) -> None:
    run, _ = stored_run(tmp_path)
    other = cnn.design(image_size=8, classes=4, pictures=10, width=0.25)
    write_architecture(run, other)
    with pytest.raises(RunError, match="cannot be read") as caught:
        load_network(run)
    assert "\n" not in str(caught.value)


def test_logits_follow_the_order_of_indices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("darkroom.models.inference.BATCH_BYTES", 8 * 8 * 32 * 4 * 3)  # three pictures a batch
    network = cnn.build(cnn.design(image_size=8, classes=3, pictures=10, width=0.25)).train()
    pixels = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
    indices = np.array([8, 0, 3, 3, 5, 1, 7])
    logits = logits_of(network, pixels, indices, device=CPU)
    assert network.training  # as before
    with torch.no_grad():
        alone = [network.eval()(torch.from_numpy(pixels[[i]]).permute(0, 3, 1, 2).float())[0].numpy() for i in indices]
    np.testing.assert_allclose(logits, np.stack(alone), atol=1e-5)
    assert logits.dtype == np.float32
