"""Points on a plane, coloured by what they are, with a legend; drawn with Pillow."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vaezoo.io import atomic_write

Color = tuple[int, int, int]

CATEGORIES: tuple[Color, ...] = (
    (49, 104, 172),
    (222, 120, 31),
    (64, 145, 108),
    (196, 58, 78),
    (122, 92, 168),
    (138, 100, 62),
    (214, 112, 178),
    (112, 118, 128),
    (170, 158, 34),
    (40, 168, 190),
)
MOST_CATEGORIES = 20
"""More different values than this are a scale, from dark to light, not colours by name."""

_SCALE = 2
_SIDE, _LEGEND, _MARGIN = 640, 190, 36
_INK, _FAINT, _FRAME = (40, 44, 52), (110, 116, 126), (222, 225, 230)


def save_scatter(
    path: Path,
    points: Tensor,
    values: Tensor | None,
    names: Sequence[str],
    *,
    title: str,
    axes: tuple[str, str] = ("", ""),
) -> None:
    """Draw points, [n, 2], as a PNG. values: a whole number for each, or None.

    names: of the values 0, 1, ...; values without one are told by their number, -1 as unknown.
    """
    size = ((_SIDE + _LEGEND) * _SCALE, _SIDE * _SCALE)
    picture = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(picture)
    small = ImageFont.load_default(size=12 * _SCALE)
    large = ImageFont.load_default(size=15 * _SCALE)
    inner = _SIDE - 2 * _MARGIN
    box = [
        _MARGIN * _SCALE,
        _MARGIN * _SCALE,
        (_SIDE - _MARGIN) * _SCALE,
        (_SIDE - _MARGIN) * _SCALE,
    ]
    pen.rectangle(box, outline=_FRAME, width=_SCALE)
    pen.text((_MARGIN * _SCALE, 18 * _SCALE), title, fill=_INK, font=large, anchor="lm")
    middle = _SIDE * _SCALE // 2
    pen.text((middle, (_SIDE - 16) * _SCALE), axes[0], fill=_FAINT, font=small, anchor="mm")
    _sideways(picture, axes[1], middle, small)

    colors = palette(values)
    low, high = points.amin(0), points.amax(0)
    # One unit for both axes: distances mean the same in each direction.
    span = max(float((high - low).max()), 1e-12)
    placed = (points - (low + high) / 2) / span * 0.94 + 0.5
    radius = 2.2 * _SCALE
    for i, (x, y) in enumerate(placed.tolist()):
        color = _INK if values is None else colors[int(values[i])]
        at = (_MARGIN + x * inner) * _SCALE, (_MARGIN + (1 - y) * inner) * _SCALE
        pen.ellipse((at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius), fill=color)
    for row, (value, color) in enumerate(_legend(colors)):
        top = (_MARGIN + 8 + row * 20) * _SCALE
        left = _SIDE * _SCALE
        pen.ellipse((left, top - 5 * _SCALE, left + 10 * _SCALE, top + 5 * _SCALE), fill=color)
        pen.text((left + 18 * _SCALE, top), name_of(value, names), _INK, font=small, anchor="lm")
    shrunk = picture.resize((size[0] // _SCALE, size[1] // _SCALE), Image.Resampling.LANCZOS)
    atomic_write(path, lambda temporary: shrunk.save(temporary, format="PNG"))


def palette(values: Tensor | None) -> dict[int, Color]:
    """A colour for each value that there is: by name for a few, a scale for many."""
    if values is None:
        return {}
    present = sorted({int(v) for v in values.tolist()})
    if len(present) <= len(CATEGORIES):
        return {value: CATEGORIES[i] for i, value in enumerate(present)}
    if len(present) <= MOST_CATEGORIES:
        return {v: _hue(i / len(present), 0.62, 0.72) for i, v in enumerate(present)}
    last = len(present) - 1
    return {
        v: _hue(0.72 - 0.6 * i / last, 0.75, 0.45 + 0.45 * i / last) for i, v in enumerate(present)
    }


def name_of(value: int, names: Sequence[str]) -> str:
    if value < 0:
        return "unknown"
    return names[value] if value < len(names) else str(value)


def _legend(colors: dict[int, Color]) -> list[tuple[int, Color]]:
    """All of a few; of a scale, seven that are spread over it."""
    entries = list(colors.items())
    if len(entries) <= MOST_CATEGORIES:
        return entries
    return [entries[round(i * (len(entries) - 1) / 6)] for i in range(7)]


def _hue(hue: float, saturation: float, value: float) -> Color:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _sideways(
    picture: Image.Image, text: str, middle: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> None:
    if not text:
        return
    width, height = int(font.getlength(text)) + 4, 18 * _SCALE
    label = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(label).text((2, height // 2), text, fill=_FAINT, font=font, anchor="lm")
    turned = label.rotate(90, expand=True)
    picture.paste(turned, (8 * _SCALE, middle - width // 2))
