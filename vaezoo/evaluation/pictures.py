"""Pictures of many images: a grid of samples, originals above their reconstructions."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from vaezoo.io import atomic_write

_GAP = 2
"""Pixels between images, and twice that between pairs of rows."""
_GROUND = 0.55
"""Grey between the images: neither of their usual grounds, black and white."""
_WANTED_WIDTH = 640
"""Small images are shown larger, by a whole number, so that a picture is about this wide."""


def save_grid(path: Path, images: Tensor, columns: int = 8) -> bool:
    """Write images as a grid, a PNG, from left to right, then down.

    images: [n, channels, height, width] in [0, 1]; two channels, or more than three, are shown as
    their mean. Returns False, and writes nothing, for vectors, which have no picture.
    """
    if images.dim() != 4:
        return False
    return _save(path, _rows(images, columns), columns)


def save_pairs(path: Path, originals: Tensor, reconstructions: Tensor, columns: int = 8) -> bool:
    """Write rows of originals, each above the row of their reconstructions; else as save_grid."""
    if originals.dim() != 4:
        return False
    above, below = _rows(originals, columns), _rows(reconstructions, columns)
    rows = [row for pair in zip(above, below, strict=True) for row in pair]
    return _save(path, rows, columns, paired=True)


def _rows(images: Tensor, columns: int) -> list[Tensor]:
    """[3, height, width] of each image, in rows."""
    images = images.detach().float().cpu().nan_to_num(0.0).clamp(0, 1)
    if images.shape[1] not in (1, 3):
        images = images.mean(1, keepdim=True)
    return list(images.expand(-1, 3, -1, -1).split(columns))


def _save(path: Path, rows: list[Tensor], columns: int, paired: bool = False) -> bool:
    height, width = rows[0].shape[-2:]
    shown = min(columns, max(len(row) for row in rows))
    scale = max(1, round(_WANTED_WIDTH / (columns * width)))
    height, width = height * scale, width * scale

    # A gap above every row, a wider one above every pair but the first.
    tops, top = [], _GAP
    for number in range(len(rows)):
        if paired and number and number % 2 == 0:
            top += 2 * _GAP
        tops.append(top)
        top += height + _GAP
    canvas = torch.full((3, top, shown * (width + _GAP) + _GAP), _GROUND)
    for row, top in zip(rows, tops, strict=True):
        large = F.interpolate(row, scale_factor=scale, mode="nearest")
        for column, image in enumerate(large):
            left = _GAP + column * (width + _GAP)
            canvas[:, top : top + height, left : left + width] = image
    pixels = (canvas * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels)
    atomic_write(path, lambda temporary: picture.save(temporary, format="PNG"))
    return True
