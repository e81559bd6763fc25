"""Lets timm be imported where torchvision was built for another PyTorch than the one installed.

PyPI's torchvision for Linux is compiled for PyTorch with CUDA. Beside a build for processors only, its compiled part
does not load, and its Python part fails at import because two operators are unknown. Nothing of darkroom calls them:
their names are enough.
"""

import torch

OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

_kept: list[torch.library.Library] = []
"""What declares operators takes them back when it is deleted."""


def declare() -> None:
    """Name the missing operators, only where importing torchvision fails without them."""
    try:
        import torchvision  # type: ignore[import-untyped]  # noqa: F401
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for schema in OPERATORS:
            library.define(schema)  # type: ignore[no-untyped-call]
        _kept.append(library)
