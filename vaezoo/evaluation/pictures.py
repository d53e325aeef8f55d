"""Pictures of examples: grids of images and of slices of volumes, rows with names, curves.

`torchvision.utils.make_grid` is not used: its import takes 3 seconds, more than drawing samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from vaezoo.data.spec import DataSpec
from vaezoo.errors import DataError
from vaezoo.evaluation.plots import draw_signals
from vaezoo.io import atomic_write

_GAP = 2
"""Pixels between images, and twice that more between pairs of rows."""
_GREY, _LIGHT, _INK = 140, 250, (40, 44, 52)
"""Colour between the images of a grid, colour between rows with names, colour of the names."""
_GRID_WIDTH = 640
_MIN_HEIGHT = 48
"""Small images are enlarged by an integer, to a grid of about this width, or to this height."""
_FRAME_MILLISECONDS = 90
_SLICES, ROW_SLICES = 6, 3
"""The most slices of a volume in a grid, and in a row of volumes."""
_DEVIATIONS = 3.0
"""Standard deviations from a channel's mean to black and to white, where channels differ."""

ValueRange = tuple[float, float]
"""The values that are drawn as black and as white."""
UNIT: ValueRange = (0.0, 1.0)


def value_range(data: DataSpec) -> ValueRange:
    """0 and 1; for real values and counts, the smallest and largest of the training examples."""
    if data.is_bounded or data.statistics is None:
        return UNIT
    low, high = data.statistics.minimum, data.statistics.maximum
    return low, high if high > low else low + 1.0


def check_drawable(data: DataSpec) -> None:
    """DataError if there are no pictures of the data."""
    if data.ndim == 0:
        raise DataError(f"this run's data is {data.describe()}: there are no pictures of them")


def _has_own_ranges(data: DataSpec) -> bool:
    """Whether each channel is drawn in a range of its own, as bands of a detector need."""
    scaled = data.statistics is not None and {*data.statistics.std} != {1.0}
    return data.domain == "real" and scaled and data.channels not in (1, 3)


def drawn_range(data: DataSpec) -> ValueRange | None:
    """The values that are black and white in a picture; None where there are no such two."""
    return None if data.ndim < 2 or _has_own_ranges(data) else value_range(data)


def _slices(data: DataSpec, most: int) -> list[int]:
    depth = data.spatial_shape[0]
    count = min(depth, most)
    return [int((i + 0.5) * depth / count) for i in range(count)]


def describe_picture(data: DataSpec, most: int = _SLICES) -> str:
    """What a picture of images or volumes shows: channels, `most` slices, black and white.

    "" where that is everything, in [0, 1].
    """
    if data.ndim < 2:
        return ""
    parts = ["channel 1 is left, channel 2 right"] if data.channels == 2 else []
    if data.channels > 3:
        parts.append(f"red, green and blue are channels 1, 2 and 3 of {data.channels}")
    if data.ndim == 3:
        numbers = ", ".join(str(n + 1) for n in _slices(data, most))
        parts.append(f"slices {numbers} of {data.spatial_shape[0]} along the depth")
    own = f"black and white are {_DEVIATIONS:g} std from a channel's mean"
    parts.append(own if _has_own_ranges(data) else describe_range(value_range(data)))
    return "; ".join(filter(None, parts))


def as_images(x: Tensor, data: DataSpec, most: int = _SLICES, axis: int = -1) -> Tensor:
    """Images or volumes, [n, *data.shape], as images to draw: black is 0, white is 1.

    `most` slices of a volume stand along `axis`: -1 from left to right, -2 from top to bottom. A
    grey line is between them.
    """
    low, high = map(torch.tensor, value_range(data))
    if _has_own_ranges(data) and data.statistics is not None:
        mean, std = map(torch.tensor, (data.statistics.mean, data.statistics.std))
        low, high = (
            (mean + n * std).view(-1, *[1] * data.ndim) for n in (-_DEVIATIONS, _DEVIATIONS)
        )
    x = (x.detach().cpu().double() - low) / (high - low)
    if data.ndim < 3:
        return x
    gap = (0, 1) if axis == -1 else (0, 0, 0, 1)
    strip = torch.cat([F.pad(x[:, :, n], gap, value=0.5) for n in _slices(data, most)], axis)
    return strip.narrow(axis, 0, strip.shape[axis] - 1)


def save_examples(path: Path, data: DataSpec, *stacks: Tensor) -> str:
    """Write examples as one picture, a PNG; returns what it shows. DataError for vectors.

    stacks: [n, *data.shape] each, in the data's units: samples, or originals and reconstructions.
    Images and slices of volumes stand in a grid; signals are curves, the two in the same axes.
    """
    check_drawable(data)
    legend = describe_picture(data)
    if data.ndim > 1:
        images = [as_images(x, data) for x in stacks]
        save_grid(path, *images, columns=8 if data.is_image else 2, legend=legend)
    else:
        panels = [("", each) for each in torch.stack(stacks, dim=1)]
        png = draw_signals(panels, ("original", "reconstructed") if len(stacks) > 1 else ())
        atomic_write(path, lambda temporary: temporary.write_bytes(png))
    return legend


def save_sequences(path: Path, data: DataSpec, rows: Sequence[Tensor], names: Sequence[str]) -> str:
    """Write rows of examples that change step by step; returns what the picture shows.

    As `save_rows` does; signals are curves, the steps of a row in the same axes, from dark to
    light. DataError for vectors, and for animations of signals.
    """
    check_drawable(data)
    legend = describe_picture(data, ROW_SLICES)
    if data.ndim > 1:
        images = [as_images(row, data, ROW_SLICES, axis=-2) for row in rows]
        save_rows(path, images, names, legend=legend)
    elif path.suffix.lower() != ".png":
        raise DataError("signals are drawn as curves: give a name that ends in .png")
    else:
        png = draw_signals([*zip(names, rows, strict=True)])
        atomic_write(path, lambda temporary: temporary.write_bytes(png))
    return legend


def describe_range(shown: ValueRange) -> str:
    """What black and white stand for, with a hint for 8-bit levels; "" for 0 and 1."""
    if shown == UNIT:
        return ""
    # What is tiny beside the range is rounding.
    low, high = (0.0 if abs(value) < 1e-4 * (shown[1] - shown[0]) else value for value in shown)
    text = f"black is {low:.4g}, white is {high:.4g}"
    if low >= 0 and 127 < high <= 255:
        text += " (if these are 8-bit levels, store them as uint8)"
    return text


def to_rgb(images: Tensor, scale: int | None = None, shown: ValueRange = UNIT) -> Tensor:
    """Images as uint8, [n, height, width, 3], enlarged by `scale`, by default to 48 pixels.

    images: [n, channels, height, width]; values outside of `shown` are drawn as black or white.
    Two channels stand side by side; of more than three the first three are red, green and blue.
    """
    low, high = shown
    images = (images.detach().double().cpu() - low) / (high - low)
    images = images.nan_to_num(0.0).clamp(0, 1).float()
    if images.shape[1] == 2:
        images = torch.cat([images[:, :1], images[:, 1:]], dim=-1)
    images = images[:, :3]
    scale = scale or max(1, -(-_MIN_HEIGHT // images.shape[2]))
    large = F.interpolate(images.expand(-1, 3, -1, -1), scale_factor=scale, mode="nearest")
    return (large * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def save_grid(
    path: Path,
    *stacks: Tensor,
    columns: int = 8,
    shown: ValueRange = UNIT,
    legend: str | None = None,
) -> None:
    """Write images as a grid, a PNG, from left to right, then down. stacks, shown: as for to_rgb.

    Of several stacks, each row stands above that of the next: originals above reconstructions.
    legend: the line below; by default it says what black and white are, unless they are 0 and 1.
    """
    scale = max(1, round(_GRID_WIDTH / (columns * stacks[0].shape[-1])))
    stacked = [to_rgb(images, scale, shown).split(columns) for images in stacks]
    rows = [row for group in zip(*stacked, strict=True) for row in group]
    picture = _add_legend(_tile(rows, _GREY, group=len(stacks)), shown, legend)
    atomic_write(path, lambda temporary: picture.save(temporary, format="PNG"))


def _add_legend(picture: Image.Image, shown: ValueRange, legend: str | None) -> Image.Image:
    """The picture with a line below it about what it shows."""
    text = (describe_range(shown) if legend is None else legend).partition(" (")[0]
    if not text:
        return picture
    font = ImageFont.load_default(size=13)
    width = max(picture.width, int(font.getlength(text)) + 12)
    larger = Image.new("RGB", (width, picture.height + 20), (_LIGHT,) * 3)
    larger.paste(picture)
    ImageDraw.Draw(larger).text((6, picture.height + 3), text, fill=_INK, font=font)
    return larger


def draw_rows(
    rows: Sequence[Tensor],
    names: Sequence[str],
    shown: ValueRange = UNIT,
    legend: str | None = None,
) -> Image.Image:
    """Rows of images, each with its name before it. rows, shown: as for to_rgb each."""
    font = ImageFont.load_default(size=13)
    before = max((int(font.getlength(name)) + 12 for name in names if name), default=0)
    drawn = [to_rgb(row, shown=shown) for row in rows]
    picture = _tile(drawn, _LIGHT, left=before)
    pen = ImageDraw.Draw(picture)
    height = drawn[0].shape[1]
    for i, name in enumerate(names):
        middle = _GAP + i * (height + _GAP) + height // 2
        pen.text((6, middle), name, fill=_INK, font=font, anchor="lm")
    return _add_legend(picture, shown, legend)


def save_rows(
    path: Path,
    rows: Sequence[Tensor],
    names: Sequence[str],
    shown: ValueRange = UNIT,
    legend: str | None = None,
) -> None:
    """Write rows of images: a PNG, or an animation if the file name ends in .gif or .webp.

    An animation shows an image of each row at a time, forwards and then backwards.
    """
    kind = path.suffix[1:].upper()
    if kind not in ("GIF", "WEBP"):
        picture = draw_rows(rows, names, shown, legend)
        atomic_write(path, lambda temporary: picture.save(temporary, format="PNG"))
        return
    frames = range(len(rows[0]))
    forwards = [draw_rows([row[i : i + 1] for row in rows], names, shown, legend) for i in frames]
    first, *others = [*forwards, *forwards[-2:0:-1]]
    options: dict[str, Any] = {"append_images": others, "duration": _FRAME_MILLISECONDS, "loop": 0}
    options |= {"lossless": True} if kind == "WEBP" else {}
    atomic_write(path, lambda file: first.save(file, format=kind, save_all=True, **options))


def _tile(rows: Sequence[Tensor], ground: int, *, left: int = 0, group: int = 1) -> Image.Image:
    """Rows of images, uint8 [n, height, width, 3] each, on a grey ground.

    left: pixels that stay free before them. group: rows that belong together; between groups of
    two or more rows the gap is wider.
    """
    height, width = rows[0].shape[1:3]
    wide = 2 * _GAP if group > 1 else 0
    tops = [_GAP + i * (height + _GAP) + i // group * wide for i in range(len(rows))]
    across = max(len(row) for row in rows) * (width + _GAP) + _GAP
    canvas = torch.full((tops[-1] + height + _GAP, left + across, 3), ground, dtype=torch.uint8)
    for row, top in zip(rows, tops, strict=True):
        for i, image in enumerate(row):
            start = left + _GAP + i * (width + _GAP)
            canvas[top : top + height, start : start + width] = image
    return Image.fromarray(canvas.numpy())
