"""Small charts side by side, drawn with Pillow: enough to see how numbers go, and which is more."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from vaezoo.io import atomic_write

_SCALE = 2
"""Drawn at twice the size and shrunk: smooth lines without a plotting library."""
_WIDTH, _HEIGHT = 440, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 20, 44, 40
_COLUMNS = 2
_BAR = 18
"""Height of a bar and the room around it."""
_LONGEST_NAME = 30
"""Characters before a bar: half of a panel."""
_INK, _FAINT, _GRID = (40, 44, 52), (120, 126, 136), (228, 230, 234)
COLORS = (
    (49, 104, 172),
    (222, 120, 31),
    (64, 145, 108),
    (170, 62, 98),
    (122, 92, 168),
    (138, 118, 52),
    (60, 150, 172),
)

Point = tuple[float, float]
Color = tuple[int, int, int]


@dataclass(frozen=True)
class Series:
    """One line of a chart. dots: a dot a point; line: whether they are joined.

    settling: how much of its start may lie outside of the shown range, for values that begin far
    from where they end.
    """

    name: str
    points: Sequence[Point]
    dots: bool = False
    line: bool = True
    settling: float = 0.0


def save_charts(path: Path, charts: Mapping[str, Sequence[Series]]) -> bool:
    """Draw a chart for each title, as a PNG; False, and nothing written, if there are none.

    Points that are not finite are left out; lines of many points are thinned to a few a pixel.
    """
    if not charts:
        return False
    with _panels(path, len(charts), _HEIGHT) as panels:
        for panel, (title, series) in zip(panels, charts.items(), strict=True):
            panel.draw(title, series)
    return True


def save_bars(path: Path, charts: Mapping[str, Sequence[tuple[str, float]]]) -> bool:
    """Draw a bar a named value, from 0, for each title, as a PNG; False if there are none.

    Values are finite and not negative.
    """
    if not charts:
        return False
    most = max(len(bars) for bars in charts.values())
    with _panels(path, len(charts), _TOP + most * _BAR) as panels:
        for panel, (title, bars) in zip(panels, charts.items(), strict=True):
            panel.draw_bars(title, bars)
    return True


@contextmanager
def _panels(path: Path, count: int, height: int) -> Iterator[list[_Panel]]:
    """Panels of one picture, which is written when all are drawn."""
    columns = min(_COLUMNS, count)
    size = (columns * _WIDTH, math.ceil(count / columns) * height)
    picture = Image.new("RGB", (size[0] * _SCALE, size[1] * _SCALE), "white")
    yield [
        _Panel(picture, number % columns * _WIDTH, number // columns * height)
        for number in range(count)
    ]
    small = picture.resize(size, Image.Resampling.LANCZOS)
    atomic_write(path, lambda temporary: small.save(temporary, format="PNG"))


def ticks(low: float, high: float) -> list[float]:
    """Two to six round numbers from low to high; low < high."""
    rough = (high - low) / 4
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


class _Panel:
    """One chart, with its axes."""

    def __init__(self, picture: Image.Image, left: int, top: int) -> None:
        self.pen = ImageDraw.Draw(picture)
        self.left, self.top = left, top
        self.small = ImageFont.load_default(size=11 * _SCALE)
        self.large = ImageFont.load_default(size=14 * _SCALE)

    def draw(self, title: str, series: Sequence[Series]) -> None:
        self._text((_LEFT, 14), title, _INK, self.large, "lm")
        shown = [Series(**{**vars(one), "points": _thin(one.points)}) for one in series]
        self._legend([one.name for one in shown])
        points = [point for one in shown for point in one.points]
        if not points:
            self._text((_WIDTH / 2, _HEIGHT / 2), "no finite value", _FAINT, self.small, "mm")
            return
        self.x_range = _range([x for x, _ in points], room=0.0)
        settled = [y for one in shown for _, y in one.points[_settling(one) :]]
        self.y_range = _range(settled, room=0.05)
        self._axes()
        for number, one in enumerate(shown):
            self._series(one, COLORS[number % len(COLORS)])

    def draw_bars(self, title: str, bars: Sequence[tuple[str, float]]) -> None:
        self._text((_LEFT, 14), title, _INK, self.large, "lm")
        texts = [(_short(name), _number(value)) for name, value in bars]
        names, numbers = (max(map(self._length, column)) for column in zip(*texts, strict=True))
        left, right = names + 16, _WIDTH - _RIGHT - numbers - 6
        most = max(value for _, value in bars) or 1.0
        for row, ((_, value), (name, number)) in enumerate(zip(bars, texts, strict=True)):
            y = _TOP - 6 + row * _BAR
            end = left + value / most * (right - left)
            self._text((left - 8, y), name, _INK, self.small, "rm")
            self._stroke([(left, y), (end, y)], COLORS[0], _BAR - 8)
            self._text((end + 6, y), number, _FAINT, self.small, "lm")

    def _length(self, text: str) -> float:
        return self.small.getlength(text) / _SCALE

    def _series(self, one: Series, color: Color) -> None:
        places = [self._place(point) for point in one.points]
        if one.line and len(places) > 1:
            self._stroke(places, color, 2)
        if one.dots or len(places) == 1:
            for place in places:
                self._dot(place, color)

    def _legend(self, names: Sequence[str]) -> None:
        right = float(_WIDTH - _RIGHT)
        for number in reversed(range(len(names))):
            color = COLORS[number % len(COLORS)]
            self._text((right, 32), names[number], color, self.small, "rm")
            right -= self._length(names[number]) + 10

    def _axes(self) -> None:
        base = _HEIGHT - _BOTTOM
        for value in ticks(*self.y_range):
            y = self._place((self.x_range[0], value))[1]
            self._stroke([(_LEFT, y), (_WIDTH - _RIGHT, y)], _GRID, 1)
            self._text((_LEFT - 8, y), _number(value), _FAINT, self.small, "rm")
        for value in ticks(*self.x_range):
            x = self._place((value, self.y_range[0]))[0]
            self._text((x, base + 12), _number(value), _FAINT, self.small, "mm")
        self._stroke([(_LEFT, base), (_WIDTH - _RIGHT, base)], _FAINT, 1)

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

    def _stroke(self, points: Sequence[Point], color: Color, width: int) -> None:
        placed = [self._on_picture(point) for point in points]
        self.pen.line(placed, fill=color, width=width * _SCALE, joint="curve")

    def _dot(self, point: Point, color: Color) -> None:
        x, y = self._on_picture(point)
        radius = 3.5 * _SCALE
        self.pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)

    def _text(
        self,
        point: Point,
        text: str,
        color: Color,
        font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
        anchor: str,
    ) -> None:
        self.pen.text(self._on_picture(point), text, fill=color, font=font, anchor=anchor)


def _thin(points: Sequence[Point]) -> list[Point]:
    finite = [point for point in points if math.isfinite(point[0]) and math.isfinite(point[1])]
    every = max(1, len(finite) // (2 * _WIDTH))
    return finite[::every] + finite[-1:] if every > 1 else finite


def _settling(one: Series) -> int:
    return int(len(one.points) * one.settling)


def _range(values: Sequence[float], room: float) -> tuple[float, float]:
    """The range to show, with some room; around the value where there is only one."""
    low, high = min(values), max(values)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        width = max(0.1 * abs(low), 1e-6)
        return low - width, high + width
    return low - room * (high - low), high + room * (high - low)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else "…" + name[1 - _LONGEST_NAME :]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
