"""How training went: one small chart a term, training as a line, held-out values as points."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from vaezoo.files import write_atomically

_SCALE = 2
"""Drawn at twice the size and shrunk: smooth lines without a plotting library."""
_WIDTH, _HEIGHT = 440, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 20, 44, 40
_COLUMNS = 2
_INK, _FAINT, _GRID = (40, 44, 52), (120, 126, 136), (228, 230, 234)
_TRAIN, _HELD_OUT = (49, 104, 172), (222, 120, 31)

Point = tuple[float, float]


def save_curves(path: Path, history: Iterable[Mapping[str, Any]]) -> bool:
    """Draw the lines of a run's metrics as a PNG; False, and nothing written, if there are none.

    history: mappings with `kind` (train or validation), `step`, and `terms` by name, in nats per
    image; values that are None or not finite leave a gap.
    """
    lines = list(history)
    names = list(dict.fromkeys(name for line in lines for name in line["terms"]))
    if not names:
        return False
    columns = min(_COLUMNS, len(names))
    rows = math.ceil(len(names) / columns)
    size = (columns * _WIDTH * _SCALE, rows * _HEIGHT * _SCALE)
    picture = Image.new("RGB", size, "white")
    for number, name in enumerate(names):
        left, top = number % columns * _WIDTH, number // columns * _HEIGHT
        train = _series(lines, "train", name)
        _Panel(picture, left, top).draw(name, train, _series(lines, "validation", name))
    small = picture.resize((size[0] // _SCALE, size[1] // _SCALE), Image.Resampling.LANCZOS)
    write_atomically(path, lambda temporary: small.save(temporary, format="PNG"))
    return True


def _series(lines: Sequence[Mapping[str, Any]], kind: str, name: str) -> list[Point]:
    """The points of one line, those that are no number left out, thinned to a few a pixel."""
    points = [
        (float(line["step"]), float(line["terms"][name]))
        for line in lines
        if line["kind"] == kind
        and line["terms"].get(name) is not None
        and math.isfinite(line["terms"][name])
    ]
    every = max(1, len(points) // (2 * _WIDTH))
    return points[::every] + points[-1:] if every > 1 else points


class _Panel:
    """One chart, with its axes."""

    def __init__(self, picture: Image.Image, left: int, top: int) -> None:
        self.pen = ImageDraw.Draw(picture)
        self.left, self.top = left, top
        self.small = ImageFont.load_default(size=11 * _SCALE)
        self.large = ImageFont.load_default(size=14 * _SCALE)

    def draw(self, name: str, train: list[Point], held_out: list[Point]) -> None:
        self._text((_LEFT, 14), name.replace("_", " "), _INK, self.large, "lm")
        self._legend(bool(held_out))
        points = train + held_out
        if not points:
            self._text((_WIDTH / 2, _HEIGHT / 2), "no finite value", _FAINT, self.small, "mm")
            return
        self.x_range = _range([x for x, _ in points], flat=1.0)
        self.y_range = _range(_without_start(train) + [y for _, y in held_out])
        self._axes()
        self._line(train)
        for point in held_out:
            x, y = self._place(point)
            self._dot(x, y)

    def _legend(self, held_out: bool) -> None:
        self._text((_WIDTH - _RIGHT, 14), "held out" if held_out else "", _HELD_OUT, self.small, "rm")
        offset = 54 if held_out else 0
        self._text((_WIDTH - _RIGHT - offset, 14), "training", _TRAIN, self.small, "rm")

    def _axes(self) -> None:
        for value in ticks(*self.y_range):
            y = self._place((self.x_range[0], value))[1]
            self._stroke([(_LEFT, y), (_WIDTH - _RIGHT, y)], _GRID, 1)
            self._text((_LEFT - 8, y), f"{value:g}", _FAINT, self.small, "rm")
        for value in ticks(*self.x_range):
            x = self._place((value, self.y_range[0]))[0]
            label = f"{value:,.0f}"
            self._text((x, _HEIGHT - _BOTTOM + 12), label, _FAINT, self.small, "mm")
        base = _HEIGHT - _BOTTOM
        self._stroke([(_LEFT, base), (_WIDTH - _RIGHT, base)], _FAINT, 1)

    def _line(self, points: list[Point]) -> None:
        if len(points) == 1:
            self._dot(*self._place(points[0]), color=_TRAIN)
        else:
            self._stroke([self._place(point) for point in points], _TRAIN, 2)

    def _place(self, point: Point) -> Point:
        """Where a value is on the panel; values past the shown range stay at its edge."""
        (x0, x1), (y0, y1) = self.x_range, self.y_range
        across = (point[0] - x0) / (x1 - x0)
        up = min(1.0, max(0.0, (point[1] - y0) / (y1 - y0)))
        return (
            _LEFT + across * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM),
        )

    def _on_picture(self, point: Point) -> Point:
        return (self.left + point[0]) * _SCALE, (self.top + point[1]) * _SCALE

    def _stroke(self, points: list[Point], color: tuple[int, int, int], width: int) -> None:
        placed = [self._on_picture(point) for point in points]
        self.pen.line(placed, fill=color, width=width * _SCALE, joint="curve")

    def _dot(self, x: float, y: float, color: tuple[int, int, int] = _HELD_OUT) -> None:
        center_x, center_y = self._on_picture((x, y))
        radius = 3.5 * _SCALE
        box = (center_x - radius, center_y - radius, center_x + radius, center_y + radius)
        self.pen.ellipse(box, fill=color)

    def _text(
        self,
        point: Point,
        text: str,
        color: tuple[int, int, int],
        font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
        anchor: str,
    ) -> None:
        self.pen.text(self._on_picture(point), text, fill=color, font=font, anchor=anchor)


def ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers from low to high."""
    rough = (high - low) / 4
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def _range(values: Sequence[float], flat: float | None = None) -> tuple[float, float]:
    """The range to show, with some room; one of a width where all values are the same."""
    low, high = min(values), max(values)
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        room = flat if flat is not None else max(abs(low) * 0.1, 1e-6)
        return low - room, high + room
    if flat is not None:
        return low, high
    room = 0.05 * (high - low)
    return low - room, high + room


def _without_start(train: list[Point]) -> list[float]:
    """Values of the training line but for its first twentieth, which would squash the rest."""
    return [y for _, y in train[len(train) // 20 :]]
