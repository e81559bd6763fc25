"""Random views of pictures, computed for a whole batch at once as tensors on the model's device.

Random numbers are drawn on the CPU from the generator that is passed in, so that a batch depends on its seed alone and
not on the device. Geometry is done by gathering pixels, in one pass for mirror and translation.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


@dataclass(frozen=True)
class Augmentation:
    """Strengths of all augmentations; the default changes nothing. `translate` and `cutout` are in pixels."""

    flip: bool = False
    translate: int = 0
    cutout: int = 0
    crop_scale: float = 1.0
    colour_jitter: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0


NONE = Augmentation()


def augment(
    pixels: Tensor, augmentation: Augmentation, generator: Generator, *, mirrored: Tensor | None = None
) -> Tensor:
    """Views of uint8 pictures (N, H, W, 3) as float (N, 3, H, W) of 0 to 255 in channels_last memory.

    `mirrored` (N,) says which pictures a flip turns; they are drawn by a fair coin when it is not given.
    """
    if augmentation.flip or augmentation.translate:
        pixels = _mirror_and_translate(pixels, augmentation, generator, mirrored)
    views = pixels.permute(0, 3, 1, 2).float()  # NHWC bytes are NCHW in channels_last: no copy but the cast
    if augmentation.crop_scale < 1:
        views = random_resized_crop(views, augmentation.crop_scale, generator)
    if augmentation.colour_jitter:
        views = colour_jitter(views, augmentation.colour_jitter, generator)
    if augmentation.cutout:
        views = cutout(views, augmentation.cutout, generator)
    return views


def _mirror_and_translate(
    pixels: Tensor, augmentation: Augmentation, generator: Generator, mirrored: Tensor | None
) -> Tensor:
    count, height, width, _ = pixels.shape
    rows = _reflected(_shifts(count, min(augmentation.translate, height - 1), generator), height)  # (N, H)
    columns = _reflected(_shifts(count, min(augmentation.translate, width - 1), generator), width)  # (N, W)
    if augmentation.flip:
        if mirrored is None:
            mirrored = torch.rand(count, generator=generator) < 0.5
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    rows, columns = to_device(rows, pixels.device), to_device(columns, pixels.device)
    picture = torch.arange(count, device=pixels.device)[:, None, None]
    flat = (picture * height + rows[:, :, None]) * width + columns[:, None, :]  # (N, H, W)
    gathered = pixels.reshape(-1, pixels.shape[3])[flat.reshape(-1)]
    return gathered.view(pixels.shape)


def _shifts(count: int, most: int, generator: Generator) -> Tensor:
    return torch.randint(-most, most + 1, (count, 1), generator=generator)


def _reflected(shifts: Tensor, size: int) -> Tensor:
    """Source positions (N, size) for pictures moved by `shifts`, mirrored at the edges without repeating them."""
    positions = (torch.arange(size) + shifts).abs()
    return (size - 1) - ((size - 1) - positions).abs()


def random_resized_crop(views: Tensor, smallest: float, generator: Generator) -> Tensor:
    """Cut a random part of at least `smallest` of the area, of aspect 3:4 to 4:3, and enlarge it to the full size."""
    count = len(views)
    area = smallest + (1 - smallest) * torch.rand(count, generator=generator)
    aspect = torch.exp((torch.rand(count, generator=generator) * 2 - 1) * 0.2877)  # log(4/3)
    # Half-widths in the coordinates of grid_sample, -1 to 1; where the aspect does not fit, the area is what is held.
    scale_x = (area * aspect).sqrt().clamp(max=1).maximum(area)
    scale_y = area / scale_x
    offset_x = (torch.rand(count, generator=generator) * 2 - 1) * (1 - scale_x)
    offset_y = (torch.rand(count, generator=generator) * 2 - 1) * (1 - scale_y)
    zero = torch.zeros(count)
    transform = torch.stack([scale_x, zero, offset_x, zero, scale_y, offset_y], dim=1).view(count, 2, 3)
    grid = F.affine_grid(to_device(transform, views.device), list(views.shape), align_corners=False)
    cropped = F.grid_sample(views, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return cropped.contiguous(memory_format=torch.channels_last)


def colour_jitter(views: Tensor, strength: float, generator: Generator) -> Tensor:
    """Scale brightness, contrast and saturation of each picture by factors from 1-strength to 1+strength."""
    factors = 1 + strength * (torch.rand(3, len(views), 1, 1, 1, generator=generator) * 2 - 1)
    brightness, contrast, saturation = to_device(factors, views.device)
    views = views * brightness
    views = torch.lerp(views.mean(dim=(1, 2, 3), keepdim=True), views, contrast)
    return torch.lerp(views.mean(dim=1, keepdim=True), views, saturation).clamp_(0, 255)


def cutout(views: Tensor, side: int, generator: Generator) -> Tensor:
    """Blank a square of `side` pixels at a random place with the picture's mean (DeVries and Taylor 2017)."""
    count, _, height, width = views.shape
    rows = _band(height, side, torch.rand(count, generator=generator))
    columns = _band(width, side, torch.rand(count, generator=generator))
    hidden = to_device(rows[:, None, :, None] & columns[:, None, None, :], views.device)
    return torch.where(hidden, views.mean(dim=(2, 3), keepdim=True), views)


def _band(size: int, side: float, centre: Tensor) -> Tensor:
    """(N, size) marks `side` positions around `centre`, a fraction of the size; cut off at the edges."""
    start = (centre * size - side / 2).round()[:, None]
    positions = torch.arange(size)
    return (positions >= start) & (positions < start + side)


def mix(views: Tensor, targets: Tensor, augmentation: Augmentation, generator: Generator) -> tuple[Tensor, Tensor]:
    """Blend each picture and its target (N, K) with another's: mixup or cutmix, by a fair coin if both are on."""
    if not (augmentation.mixup or augmentation.cutmix):
        return views, targets
    partner = to_device(torch.randperm(len(views), generator=generator), views.device)
    heads = bool(torch.rand((), generator=generator) < 0.5)
    if augmentation.mixup and (heads or not augmentation.cutmix):
        share = _beta(augmentation.mixup, generator)
        return torch.lerp(views[partner], views, share), torch.lerp(targets[partner], targets, share)
    return _cutmix(views, targets, partner, augmentation.cutmix, generator)


def _cutmix(
    views: Tensor, targets: Tensor, partner: Tensor, alpha: float, generator: Generator
) -> tuple[Tensor, Tensor]:
    height, width = views.shape[2:]
    part = (1 - _beta(alpha, generator)) ** 0.5
    rows = _band(height, part * height, torch.rand(1, generator=generator))
    columns = _band(width, part * width, torch.rand(1, generator=generator))
    pasted = to_device(rows[:, None, :, None] & columns[:, None, None, :], views.device)
    share = 1 - pasted.float().mean()  # after rounding and cutting off at the edges
    return torch.where(pasted, views[partner], views), torch.lerp(targets[partner], targets, share)


def _beta(alpha: float, generator: Generator) -> float:
    """A draw of Beta(alpha, alpha), by torch's gamma sampler, which takes the generator."""
    first, second = torch._standard_gamma(torch.full((2,), alpha), generator=generator).tolist()
    return float(first / (first + second)) if first + second > 0 else 0.5


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy to an accelerator without waiting for what it is doing, which takes pinned memory; the same on a CPU."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values
