"""Random changes of training examples, computed on the device of the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vaezoo.data.options import Augmentation
from vaezoo.data.spec import DataSpec
from vaezoo.errors import DataError
from vaezoo.runtime.device import mix_bits

_GREY = (0.299, 0.587, 0.114)
"""The weights of red, green and blue in the brightness of a pixel (ITU-R BT.601)."""
_JITTER = 0.2
"""The largest change of brightness, contrast and saturation, as a fraction."""


def augment(raw: Tensor, index: Tensor, stream: int, names: Sequence[Augmentation]) -> Tensor:
    """Change examples; what is drawn follows from (stream, number of the example) alone.

    A hash instead of a generator does not depend on the order of the examples, the batch size, the
    number of processes or the device. raw: [n, channels, *spatial_shape]. index: int64 [n].
    """
    for name, (salt, change) in _CHANGES.items():
        if name in names:
            raw = change(raw, mix_bits(index + mix_bits(stream ^ salt)))
    return raw


def check_augment(names: Sequence[Augmentation], data: DataSpec) -> None:
    """DataError unless the data has what these augmentations change."""
    for name in names:
        if data.ndim == 0:
            raise DataError(f"--augment {name} needs data with a position: images, not vectors")
        if name == "color" and (data.domain != "unit" or not data.is_image):
            raise DataError(f"--augment color needs images of 256 levels, not {data.domain} values")


def random_hflip(raw: Tensor, key: Tensor) -> Tensor:
    """Mirror about half of the examples along their last axis. key: random bits, int64 [n]."""
    mirrored = key & 1 == 1
    return torch.where(mirrored.view(-1, *[1] * (raw.dim() - 1)), raw.flip(-1), raw)


def random_crop(raw: Tensor, key: Tensor) -> Tensor:
    """Shift each example by up to an eighth of each side; what is outside is mirrored in."""
    for axis in range(2, raw.dim()):
        size = raw.shape[axis]
        most = size // 8
        shift = mix_bits(key + axis) % (2 * most + 1) - most
        position = torch.arange(size, device=raw.device) + shift[:, None]
        position = size - 1 - (size - 1 - position.abs()).abs()
        shape = [len(raw), *[1] * (axis - 1), size, *[1] * (raw.dim() - axis - 1)]
        raw = raw.take_along_dim(position.view(shape), axis)
    return raw


def random_color(raw: Tensor, key: Tensor) -> Tensor:
    """Multiply brightness, contrast and, of 3 channels, saturation by factors in [0.8, 1.2].

    raw: uint8 [n, channels, height, width]; also the result.
    """
    x = raw.float()
    draws = [mix_bits(key + number).float() / 2**32 for number in (1, 2, 3)]
    brightness, contrast, saturation = (
        (1 + _JITTER * (2 * draw - 1)).view(-1, 1, 1, 1) for draw in draws
    )
    x = (x * brightness).clamp(0, 255)
    weights = x.new_tensor(_GREY) if x.shape[1] == 3 else x.new_ones(x.shape[1]) / x.shape[1]
    grey = (x * weights.view(-1, 1, 1)).sum(1, keepdim=True)
    mean = grey.mean((2, 3), keepdim=True)
    x, grey = mean + contrast * (x - mean), mean + contrast * (grey - mean)
    if x.shape[1] == 3:
        x = grey + saturation * (x - grey)
    return x.round().clamp(0, 255).to(torch.uint8)


_CHANGES: dict[Augmentation, tuple[int, Callable[[Tensor, Tensor], Tensor]]] = {
    "flip": (0x5A17, random_hflip),
    "crop": (0x5A18, random_crop),
    "color": (0x5A19, random_color),
}
"""In the order in which they are applied, each with a number that makes its draws its own."""
