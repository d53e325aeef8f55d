"""Rows of images with a name before each, and images that move."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from vaezoo.io import atomic_write

MOVING = (".gif", ".webp")
"""Endings of files whose pictures move."""

_GAP = 2
_GROUND, _INK = (250, 250, 251), (40, 44, 52)
_SMALLEST = 48
"""Small images are shown larger, by a whole number, to be at least so high."""
_FRAME_MILLISECONDS = 90


def to_rgb(images: Tensor) -> Tensor:
    """[n, channels, height, width] in [0, 1] as uint8 [n, height, width, 3].

    Two channels, or more than three, are shown as their mean.
    """
    images = images.detach().float().cpu().nan_to_num(0.0).clamp(0, 1)
    if images.shape[1] not in (1, 3):
        images = images.mean(1, keepdim=True)
    scale = max(1, -(-_SMALLEST // images.shape[2]))
    large = F.interpolate(images.expand(-1, 3, -1, -1), scale_factor=scale, mode="nearest")
    return (large * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def rows_picture(rows: Sequence[Tensor], names: Sequence[str]) -> Image.Image:
    """Rows of images, each with its name before it. rows: [n, channels, height, width] each."""
    font = ImageFont.load_default(size=13)
    before = max((int(font.getlength(name)) + 12 for name in names if name), default=0)
    shown = [to_rgb(row) for row in rows]
    height, width = shown[0].shape[1:3]
    across = max(len(row) for row in shown)
    size = (before + across * (width + _GAP) + _GAP, len(shown) * (height + _GAP) + _GAP)
    picture = Image.new("RGB", size, _GROUND)
    pen = ImageDraw.Draw(picture)
    for i, (row, name) in enumerate(zip(shown, names, strict=True)):
        top = _GAP + i * (height + _GAP)
        pen.text((6, top + height // 2), name, fill=_INK, font=font, anchor="lm")
        for j, image in enumerate(row):
            picture.paste(Image.fromarray(image.numpy()), (before + _GAP + j * (width + _GAP), top))
    return picture


def save_rows(path: Path, rows: Sequence[Tensor], names: Sequence[str]) -> None:
    """As a still picture; where the name of the file ends in .gif or .webp, as a moving one.

    A moving one shows an image of each row at a time, there and back again.
    """
    if path.suffix.lower() not in MOVING:
        picture = rows_picture(rows, names)
        atomic_write(path, lambda temporary: picture.save(temporary, format="PNG"))
        return
    frames = [rows_picture([row[i : i + 1] for row in rows], names) for i in range(len(rows[0]))]
    there_and_back = [*frames, *frames[-2:0:-1]]
    kind = path.suffix[1:].upper()
    atomic_write(
        path,
        lambda temporary: there_and_back[0].save(
            temporary,
            format=kind,
            save_all=True,
            append_images=there_and_back[1:],
            duration=_FRAME_MILLISECONDS,
            loop=0,
            **({"lossless": True} if kind == "WEBP" else {}),
        ),
    )
