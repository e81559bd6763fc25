"""Answers averaged over views: by hand, refused where mirrors are not trained, and the same from files to bundle."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from darkroom import workflow
from darkroom.config import DataConfig, TrainConfig, Views
from darkroom.data.dataset import reopen
from darkroom.engines.onnx_runtime import OnnxRuntimeEngine
from darkroom.errors import UsageError
from darkroom.models import cnn
from darkroom.models.stored import load_network
from darkroom.models.views import Averaged, with_views
from darkroom.runs import Run
from darkroom.training.recipes import complete
from training import draw_folder


class Corner(nn.Module):
    """The pixel in the upper left and the one in the upper right, as two logits."""

    def forward(self, pictures: Tensor) -> Tensor:
        return torch.stack([pictures[:, 0, 0, 0], pictures[:, 0, 0, -1]], dim=1)


def test_one_view_is_the_network_itself() -> None:
    network = Corner()
    assert with_views(network, 1) is network


def test_two_views_by_hand() -> None:
    pictures = torch.arange(2 * 3 * 4 * 4).view(2, 3, 4, 4).float()
    left, right = pictures[:, 0, 0, 0], pictures[:, 0, 0, -1]
    wanted = (left + right) / 2
    torch.testing.assert_close(with_views(Corner(), 2)(pictures), torch.stack([wanted, wanted], dim=1))


def test_six_views_by_hand() -> None:
    picture = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16]])
    pictures = picture.expand(1, 3, 4, 4)
    # Upper corners: as it is 1 and 4; moved up and left the second row, 6 and, reflected, 7; moved down and right,
    # where the second row is reflected, 6 and 7.
    wanted = (1 + 4 + 0.5 * (6 + 7) + 0.5 * (6 + 7)) / 4
    torch.testing.assert_close(with_views(Corner(), 6)(pictures), torch.full((1, 2), wanted))


@pytest.mark.parametrize("views", [2, 6])
def test_answers_do_not_depend_on_the_batch(views: Views) -> None:
    torch.manual_seed(0)
    network = Averaged(cnn.build(cnn.design(image_size=8, classes=3, pictures=10, width=0.25)), views).eval()
    pictures = torch.rand(5, 3, 8, 8) * 255
    alone = torch.cat([network(picture[None]) for picture in pictures])
    torch.testing.assert_close(network(pictures), alone, atol=1e-7, rtol=1e-4)
    if views == 2:  # of 6, the mirror image of the one moved left is not the one moved right
        torch.testing.assert_close(network(pictures.flip(3)), network(pictures), atol=1e-7, rtol=1e-4)


def test_mirrors_that_were_not_trained_are_refused() -> None:
    with pytest.raises(UsageError, match="--views 2 mirrors pictures and --no-flip forbids it"):
        TrainConfig(views=2, flip=False)
    with pytest.raises(UsageError, match="--views 6 mirrors pictures, which at 8 pixels is not trained: add --flip"):
        complete(TrainConfig(views=6), image_size=8, pictures=100)
    assert complete(TrainConfig(views=6, flip=True), image_size=8, pictures=100).views == 6


@pytest.mark.slow
def test_every_stage_answers_with_the_views(tmp_path: Path) -> None:
    config = DataConfig(cache=tmp_path / "cache")
    run = Run(tmp_path / "run")
    data = str(draw_folder(tmp_path / "data", each=30))
    training = TrainConfig(epochs=2, threads=1, width=0.25, views=6, precision="fp32", memory_format="contiguous")
    workflow.run_all(data, run, data_config=config, config=training)
    dataset, predictions = reopen(run, config), run.read_predictions("test")
    ids = predictions.ids
    pictures = torch.from_numpy(dataset.pixels[ids]).permute(0, 3, 1, 2).float()
    network = load_network(run)
    assert isinstance(network, Averaged)
    with torch.no_grad():
        single = network.network(pictures).numpy()
        averaged = network(pictures).numpy()
    np.testing.assert_allclose(predictions.logits, averaged, atol=1e-4)
    assert np.abs(averaged - single).max() > 1e-3  # so that one view would be noticed
    with OnnxRuntimeEngine.open(run.bundle) as engine:
        assert engine.bundle.model["views"] == 6
        np.testing.assert_allclose(engine.run(dataset.pixels[ids]).logits, averaged, atol=1e-4)
    assert "each answer averages 6 views" in (run.bundle / "model-card.md").read_text()
