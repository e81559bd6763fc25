"""darkroom's own family of convolutional networks, from 8×8 grey digits to 224×224 photos.

    picture (3, S, S), values 0 to 255
      normalise   subtract the channel mean of the training pictures, divide by their standard deviation
      stem        what looks at the pixels first, one of
                    whitening    a fixed 2×2 convolution that makes patches of training pictures uncorrelated, GELU
                    convolution  3×3 convolution, batch normalisation, GELU; photos above 64 pixels are halved here
      stage × D   3×3 convolution, 2×2 max pooling, normalisation, GELU, then more 3×3 convolutions with the same
      pool        largest activation of each channel
      head        dropout, fully connected layer -> logits (K,)

Where a mirrored picture shows the same class, half of the filters are the mirror images of the other half (`Mirrored`).
The network so answers a picture and its mirror image nearly alike and learns from both at once, for the work of one.

Depth follows the picture: stages halve it until 4 pixels or fewer are left. Width follows the data: fewer channels for
a few hundred pictures than for tens of thousands. Pooling *before* the normalisation, the whitening stem, filters that
start as identities, and normalisation without a scale are the layout of K. Jordan's CIFAR-10 speed records
(arXiv 2404.00498), which buys most accuracy for a multiply-add.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darkroom.runs import rebuilt

SMALL_PICTURE = 64
"""Largest side in pixels that the stem keeps at full resolution."""

WHITENED_FROM = 16
"""Smallest side in pixels with a whitening stem, which takes a row and a column away."""

WHITENING_PICTURES = 2000
WHITENING_FLOOR = 5e-4
"""Added to the variances of patches (1 for a normalised pixel), so that what never varies is not blown up."""

Stem = Literal["whitening", "convolution"]


@dataclass(frozen=True)
class Architecture:
    """Everything needed to build the network again; part of config.json."""

    image_size: int
    classes: int
    stem: Stem
    stem_width: int
    widths: tuple[int, ...]
    convolutions: int
    dropout: float
    mirrored: bool

    def to_json(self) -> dict[str, Any]:
        """Plain values for config.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Architecture":
        """Inverse of `to_json`."""
        return rebuilt(cls, {**content, "widths": tuple(content["widths"])})


def design(
    *,
    image_size: int,
    classes: int,
    pictures: int,
    width: float = 1.0,
    convolutions: int = 2,
    dropout: float = 0.0,
    mirrored: bool = False,
) -> Architecture:
    """Choose depth and width from the size of the pictures and how many there are to train on.

    `width` is a factor on all channels, `convolutions` the number of them in each stage; `mirrored` says that a
    mirrored picture shows the same class.
    """
    small = image_size <= SMALL_PICTURE
    # Narrow where every pixel is looked at, which costs most; small pictures are wide right behind it.
    side, first, growth = (image_size, 48, 6) if small else (-(-image_size // 2), 64, 2)
    widths: list[int] = []
    while side > 4 or len(widths) < 2:
        side //= 2
        widths.append(_channels(first * growth ** len(widths), pictures, width))
    whitened = small and image_size >= WHITENED_FROM
    return Architecture(
        image_size=image_size,
        classes=classes,
        stem="whitening" if whitened else "convolution",
        stem_width=24 if whitened else max(8, round(32 * width / 8) * 8),
        widths=tuple(widths),
        convolutions=convolutions,
        dropout=dropout,
        mirrored=mirrored,
    )


def _channels(wish: int, pictures: int, factor: float) -> int:
    most = 256 if pictures >= 2000 else 128  # more channels than that only learn a small set by heart
    return max(8, round(min(wish, most) * factor / 8) * 8)  # multiples of 8 fill vector registers


class Normalise(nn.Module):
    """Channel-wise standardisation of values 0 to 255, inside the network so that it travels with every export."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) of 0 to 255 -> the same shape, about zero mean and unit variance."""
        return (pictures - self.mean) / self.std


class Mirrored(nn.Conv2d):
    """A convolution whose second half of filters are the mirror images of the first half, which alone is learned.

    From a mirrored picture it makes the mirrored features, with the halves exchanged: a convolution over the group of
    mirroring (Cohen and Welling 2016). `partners` (C,) names the channel that each input channel becomes in a mirrored
    picture. The network as a whole is not quite exact: pooling drops the last column of an odd size, a stride of two
    begins with the first of an even one, and normalisation and last layer are not shared by the halves.
    """

    partners: Tensor

    def __init__(self, partners: Tensor, width: int, *, stride: int = 1) -> None:
        super().__init__(len(partners), width, 3, stride=stride, padding=1, bias=False)
        self.weight = nn.Parameter(self.weight.detach()[: width // 2].clone())  # (width / 2, C, 3, 3)
        self.register_buffer("partners", partners, persistent=False)

    def filters(self) -> Tensor:
        """All filters (width, C, 3, 3)."""
        return torch.cat([self.weight, self.weight[:, self.partners].flip(3)])

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, width, H, W), of a stride the fewer."""
        return F.conv2d(input, self.filters(), stride=self.stride, padding=self.padding)

    def written_out(self) -> nn.Conv2d:
        """The same as an ordinary convolution."""
        channels, width = self.in_channels, self.out_channels
        plain = nn.Conv2d(channels, width, 3, stride=self.stride[0], padding=1, bias=False)
        plain.weight = nn.Parameter(self.filters().detach())
        return plain


class GlobalMaxPool2d(nn.Module):
    """As `nn.AdaptiveMaxPool2d(1)`, in an operator that PyTorch 2.11 exports, too; equal maxima share the gradient."""

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, 1, 1)."""
        return features.amax((2, 3), keepdim=True)


def written_out(network: nn.Module) -> nn.Module:
    """Replace mirrored convolutions and global max pooling by what is exported everywhere, in place: for those who run
    the network and do not train it."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Mirrored):
                setattr(parent, name, child.written_out())
            elif isinstance(child, nn.AdaptiveMaxPool2d) and child.output_size == 1:
                setattr(parent, name, GlobalMaxPool2d())
    return network


def _halves_exchanged(width: int) -> Tensor:
    return torch.arange(width).roll(width // 2)


class Stage(nn.Module):
    """Convolution, pooling, normalisation, GELU; then convolutions at the lower resolution, around which a third
    convolution brings a shortcut. With `partners` of the channels (C,), all convolutions are mirrored."""

    def __init__(self, channels: int, width: int, convolutions: int, *, partners: Tensor | None = None) -> None:
        super().__init__()
        first = _convolution(channels, width, partners)
        self.down = nn.Sequential(first, nn.MaxPool2d(2), _normalisation(width), nn.GELU())
        partners = None if partners is None else _halves_exchanged(width)
        layers: list[nn.Module] = []
        for _ in range(convolutions - 1):
            layers += [_convolution(width, width, partners), _normalisation(width), nn.GELU()]
        self.rest = nn.Sequential(*layers)
        self.shortcut = convolutions > 2

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, width, H // 2, W // 2)."""
        features = self.down(features)
        result: Tensor = self.rest(features)
        return result + features if self.shortcut else result


def build(
    architecture: Architecture, *, mean: Sequence[float] = (0, 0, 0), std: Sequence[float] = (255, 255, 255)
) -> nn.Sequential:
    """A new network, (N, 3, S, S) float of 0 to 255 -> logits (N, K), with weights from torch's global generator.

    A whitening stem is zero until `fit_whitening` sets it.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(normalise=Normalise(mean, std))
    layers["stem"] = _stem(architecture)
    channels = architecture.stem_width
    partners = _partners(architecture)
    for number, width in enumerate(architecture.widths, start=1):
        layers[f"stage{number}"] = Stage(channels, width, architecture.convolutions, partners=partners)
        channels = width
        partners = None if partners is None else _halves_exchanged(width)
    layers["pool"] = nn.AdaptiveMaxPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["dropout"] = nn.Dropout(architecture.dropout)
    layers["head"] = _head(channels, architecture.classes)
    return nn.Sequential(layers)


def _partners(architecture: Architecture) -> Tensor | None:
    """What each channel of the stem becomes in a mirrored picture; None where mirroring changes the class."""
    if not architecture.mirrored:
        return None
    if architecture.stem == "convolution":
        return _halves_exchanged(architecture.stem_width)
    even = torch.arange(6)  # the filters are even ones, odd ones, and the negatives of both: see fit_whitening
    return torch.cat([even, even + 18, even + 12, even + 6])


def _stem(architecture: Architecture) -> nn.Sequential:
    width = architecture.stem_width
    if architecture.stem == "whitening":
        convolution = nn.Conv2d(3, width, 2, bias=False)
        nn.init.zeros_(convolution.weight.requires_grad_(False))
        return nn.Sequential(convolution, nn.GELU())
    stride = 1 if architecture.image_size <= SMALL_PICTURE else 2
    convolution = (
        Mirrored(torch.arange(3), width, stride=stride)
        if architecture.mirrored
        else nn.Conv2d(3, width, 3, stride=stride, padding=1, bias=False)
    )
    return nn.Sequential(convolution, _normalisation(width), nn.GELU())


def _convolution(channels: int, width: int, partners: Tensor | None) -> nn.Conv2d:
    """3×3; the first filters begin as the identity, so that the picture reaches the last stage from the first step."""
    if partners is not None:
        mirrored = Mirrored(partners, width)
        passed = (partners >= torch.arange(channels)).nonzero()[: width // 2, 0]  # mirror images pass on their partners
        mirrored.weight.data[: len(passed)] = 0
        mirrored.weight.data[torch.arange(len(passed)), passed, 1, 1] = 1
        return mirrored
    convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    nn.init.dirac_(convolution.weight.data[:channels])
    return convolution


def _normalisation(width: int) -> nn.BatchNorm2d:
    """Without a scale, since the next layer has one; statistics of the last few batches, which averaging smooths."""
    normalisation = nn.BatchNorm2d(width, momentum=0.6)
    normalisation.weight.requires_grad_(False)
    return normalisation


def _head(channels: int, classes: int) -> nn.Linear:
    head = nn.Linear(channels, classes)
    nn.init.normal_(head.weight, std=1 / channels)  # small logits at first, whatever the width
    nn.init.zeros_(head.bias)
    return head


@torch.no_grad()
def fit_whitening(network: nn.Module, pictures: Iterable[Tensor]) -> None:
    """Set a whitening stem from batches of training pictures (N, 3, S, S), 0 to 255; other stems stay as they are.

    The filters are the principal components of 2×2 patches and their mirror images, scaled to unit variance: six that
    mirroring leaves as they are, six that it turns into their negatives; then the negatives of all, so that the
    activation behind them loses nothing.
    """
    normalise, convolution = network.get_submodule("normalise"), network.get_submodule("stem.0")
    if not isinstance(convolution, nn.Conv2d) or convolution.weight.requires_grad:
        return
    count, covariance = 0, torch.zeros(12, 12, dtype=torch.float64)
    for batch in pictures:
        patches = F.unfold(normalise(batch.cpu()), 2).transpose(1, 2).reshape(-1, 12).double()  # (N · (S-1)², 12)
        covariance += patches.T @ patches
        count += len(patches)
    filters = torch.cat([_principal(covariance / count, sign) for sign in (1, -1)]).reshape(12, 3, 2, 2)
    convolution.weight.copy_(torch.cat([filters, -filters]))


def _principal(covariance: Tensor, sign: int) -> Tensor:
    """Whitening filters (6, 12) among the even (sign 1) or odd (-1) ones, for patches (3, 2, 2) of that covariance.

    Of patches together with their mirror images, no even filter's response is correlated with an odd one's.
    """
    left, right = torch.eye(12, dtype=covariance.dtype).reshape(12, 6, 2).unbind(2)  # columns of a patch
    basis = (left + sign * right) / 2**0.5  # (12, 6)
    variances, components = torch.linalg.eigh(basis.T @ covariance @ basis)
    filters: Tensor = (basis @ (components / (variances + WHITENING_FLOOR).sqrt())).T
    return filters
