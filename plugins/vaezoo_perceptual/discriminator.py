"""The patch discriminator of pix2pix."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from vaezoo import DataSpec
from vaezoo.errors import DataError
from vaezoo.models.distributions import to_float32
from vaezoo.nn.scaling import rescaling

Norm = Literal["batch", "group", "none"]


class PatchDiscriminator(nn.Module):
    """PatchGAN: a logit for each of many overlapping patches (Isola et al. 2017, section 3.2.2).

    4×4 convolutions with LeakyReLU(0.2): `layers` of them halve the image, one more keeps its
    size, and the last gives the logits. Channels double with each layer, up to 8 times the first.
    All but the first and the last have a norm. Weights start at N(0, 0.02), those of norms at
    N(1, 0.02). With three layers a patch is 70×70 pixels.

    Images, [batch, *data.shape], any size from `smallest(layers)` -> logits, float32
    [batch, 1, rows, columns].
    """

    def __init__(self, data: DataSpec, channels: int, layers: int, norm: Norm) -> None:
        super().__init__()
        widths = [channels * min(2**level, 8) for level in range(layers + 1)]
        body: list[nn.Module] = [*rescaling(data), nn.Conv2d(data.channels, channels, 4, 2, 1)]
        for level in range(1, layers + 1):
            stride = 2 if level < layers else 1
            bias = norm != "batch"  # its mean is subtracted
            conv = nn.Conv2d(widths[level - 1], widths[level], 4, stride, 1, bias=bias)
            body += [nn.LeakyReLU(0.2), conv, *_norm(norm, widths[level])]
        self.body = nn.Sequential(*body, nn.LeakyReLU(0.2), nn.Conv2d(widths[-1], 1, 4, 1, 1))
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        return to_float32(self.body(x))


def smallest(layers: int) -> int:
    """The smallest height and width of an image for a discriminator with so many layers."""
    return 3 * 2**layers


def check_size(data: DataSpec, layers: int) -> None:
    """DataError unless images are large enough."""
    side = min(data.height, data.width)
    if side < smallest(layers):
        fits = max((n for n in range(1, layers) if smallest(n) <= side), default=0)
        advice = f"--discriminator-layers {fits}" if fits else "--adversarial-weight 0"
        raise DataError(
            f"a discriminator of {layers} layers needs images of {smallest(layers)} pixels, not "
            f"{side}: give {advice}"
        )


def _norm(norm: Norm, channels: int) -> list[nn.Module]:
    if norm == "batch":
        return [nn.BatchNorm2d(channels)]
    return [nn.GroupNorm(_groups(channels), channels)] if norm == "group" else []


def _groups(channels: int) -> int:
    """The most groups up to 32 that divide the channels, with two channels or more in each."""
    return max(n for n in range(1, 33) if channels % n == 0 and (n == 1 or channels // n > 1))


def _initialise(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d):
        nn.init.normal_(layer.weight, 0.0, 0.02)
    elif isinstance(layer, nn.BatchNorm2d | nn.GroupNorm):
        nn.init.normal_(layer.weight, 1.0, 0.02)
