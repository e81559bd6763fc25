"""Folders of tiny networks with weights drawn at random, in timm's form: what stands in for weights from ImageNet."""

import json
from pathlib import Path

import torch

from darkroom.models import backbones
from darkroom.models.backbones import timm


def write_backbone(folder: Path, name: str = "test_resnet", *, side: int = 64, seed: int = 0, classes: int = 10) -> str:
    """Write such a folder, trained (so it says) on pictures of `side`; returns what `--model` takes."""
    torch.manual_seed(seed)
    network = timm.create_model(name, pretrained=False, num_classes=classes)
    backbones.save_for_hf(network, str(folder), safe_serialization=True)
    path = folder / "config.json"
    content = json.loads(path.read_text())
    content["pretrained_cfg"] |= {
        "input_size": [3, side, side],
        "crop_pct": 0.9,
        "mean": [0.5, 0.4, 0.3],
        "interpolation": "bicubic",
    }
    path.write_text(json.dumps(content))
    return f"{backbones.LOCAL}{folder}"
