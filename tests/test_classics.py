"""The networks that people ask for, with random weights, through training, export, engine and activation map."""

from pathlib import Path

import numpy as np
import pytest
import torch

from darkroom import workflow
from darkroom.bundle import Bundle
from darkroom.config import DataConfig, TrainConfig
from darkroom.data.dataset import reopen
from darkroom.engines.onnx_runtime import OnnxRuntimeEngine
from darkroom.evaluation.explain import activation_maps
from darkroom.models.stored import load_network
from darkroom.runs import Run
from darkroom.training.state import Best
from finished import draw_blobs

CLASSICS = ("vgg16", "inception_v3", "resnet50", "efficientnet_b0", "convnext_tiny", "vit_small_patch16_224")


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSICS)
def test_a_classic_goes_all_the_way(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Best, "beaten_by", lambda *_: True)  # a tuned network is to be exported, however good it is
    draw_blobs(tmp_path / "blobs", pictures=14)
    config = DataConfig(cache=tmp_path / "cache")
    if name != "vit_small_patch16_224":  # which takes 224 pixels only
        config = DataConfig(cache=tmp_path / "cache", image_size=96)
    run = Run(tmp_path / "run")
    workflow.run_all(
        str(tmp_path / "blobs"),
        run,
        data_config=config,
        config=TrainConfig(model=name, random_weights=True, epochs=1, batch_size=16, learning_rate=1e-4),
    )
    assert len(run.read_history()) == 1
    assert run.read_config()["training"]["result"]["best_epoch"] == 1
    parity = Bundle.open(run.bundle).info.parity
    assert parity["largest_difference"] < 1e-4
    assert parity["test"]["other_answers"] == 0
    dataset, network = reopen(run, config), load_network(run)
    pixels = np.array(dataset.pixels[:2])
    pictures = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    with OnnxRuntimeEngine.open(run.bundle) as engine, torch.no_grad():
        np.testing.assert_allclose(engine.answer(pixels).logits, network(pictures).numpy(), rtol=1e-3, atol=1e-3)
    maps = activation_maps(network, pictures.repeat(3, 1, 1, 1), torch.arange(3).repeat_interleave(2))
    assert maps is not None
    assert maps.shape == (6, *pictures.shape[2:])
    assert maps.isfinite().all()
    assert maps.view(3, 2, -1).amax((0, 2)).tolist() == pytest.approx([1, 1]), "each picture speaks for some class"
