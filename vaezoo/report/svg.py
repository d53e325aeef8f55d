"""Charts as SVG that takes its colours from the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vaezoo.evaluation.charts import Point, ticks
from vaezoo.report.html import Markup, tag

WIDTH, HEIGHT = 380, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 12, 12, 34
COLORS = 10
_LETTER = 6.3
"""About how wide a letter of a name is."""
_SETTLING = 0.05
"""The first twentieth of a curve may leave the chart, or it would squash the rest."""


@dataclass(frozen=True)
class Line:
    """One run in a chart. number: of the run, which gives its colour. dots: held-out values."""

    name: str
    number: int
    points: Sequence[Point]
    dots: Sequence[Point] = ()


def color(number: int) -> str:
    """The class of a run's colour; from the eleventh on with a dash."""
    return f"c{number % COLORS}" + (" dashed" if number >= COLORS else "")


class _Scale:
    """Values to places. low < high."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        if high - low <= 1e-9 * max(abs(low), abs(high), 1e-300):
            width = max(0.1 * abs(low), 1e-6)
            low, high = low - width, high + width
        self.low, self.high, self.start, self.end = low, high, start, end

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)


def _scales(xs: Sequence[float], ys: Sequence[float], room: float = 0.05) -> tuple[_Scale, _Scale]:
    more = room * (max(ys) - min(ys))
    return (
        _Scale(min(xs), max(xs), _LEFT, WIDTH - _RIGHT),
        _Scale(min(ys) - more, max(ys) + more, HEIGHT - _BOTTOM, _TOP),
    )


def curves(title: str, lines: Sequence[Line], y_name: str, x_name: str = "step") -> Markup:
    """A line a run; held-out values as dots."""
    settled = [
        y
        for line in lines
        for y in (
            *(y for _, y in line.points[int(_SETTLING * len(line.points)) :]),
            *(y for _, y in line.dots),
        )
    ]
    xs = [x for line in lines for x, _ in (*line.points, *line.dots)]
    x, y = _scales(xs, settled)
    parts: list[Markup] = _axes(x, y, x_name, y_name)
    for line in lines:
        tint = color(line.number)
        if len(line.points) > 1:
            path = "M" + "L".join(f"{x(a):.1f},{y(b):.1f}" for a, b in line.points)
            told = tag("title", f"{line.name}, training")
            parts.append(tag("path", told, d=path, class_=f"line {tint}", data_run=line.number))
        for a, b in line.dots if len(line.points) > 1 else (*line.points, *line.dots):
            told = tag("title", f"{line.name}: {show(b)} held out, {x_name} {show(a)}")
            parts.append(_dot(x(a), y(b), 2.6, f"dot {tint}", line.number, told))
    return _figure(title, parts, f"{title}: {len(lines)} curves over {x_name}s")


def plane(title: str, lines: Sequence[Line]) -> Markup:
    """Rate across, distortion up, a dot a run with its way there; diagonals have one ELBO."""
    dots = [point for line in lines for point in line.dots]
    x, y = _scales_around(dots)
    parts = _axes(x, y, "rate, nats", "distortion, nats")
    parts += _diagonals(x, y)
    for line in lines:
        tint = color(line.number)
        way = [p for p in line.points if x.low <= p[0] <= x.high and y.low <= p[1] <= y.high]
        if len(way) > 1:
            path = "M" + "L".join(f"{x(a):.1f},{y(b):.1f}" for a, b in way)
            parts.append(tag("path", d=path, class_=f"line faint {tint}", data_run=line.number))
        for a, b in line.dots:
            elbo = show(-(a + b))
            told = tag("title", f"{line.name}: rate {show(a)}, distortion {show(b)}, ELBO {elbo}")
            parts.append(_dot(x(a), y(b), 5, f"dot {tint}", line.number, told))
    parts += _names([(line, (x(a), y(b))) for line in lines for a, b in line.dots])
    return _figure(title, parts, f"{title}: rate and distortion of {len(lines)} runs")


def bars(
    title: str, number: int, values: Sequence[tuple[str, float]], x_name: str, unit: str
) -> Markup:
    """Bars in the order given. values: (what a bar says of itself, its height)."""
    top = max((value for _, value in values), default=0.0) or 1.0
    y = _Scale(0.0, top * 1.05, HEIGHT - _BOTTOM, _TOP)
    parts = _axes(None, y, x_name, unit)
    room = (WIDTH - _LEFT - _RIGHT) / max(1, len(values))
    for i, (told, value) in enumerate(values):
        height = y(0.0) - y(value)
        parts.append(
            tag(
                "rect",
                tag("title", told),
                x=f"{_LEFT + i * room + 0.08 * room:.2f}",
                y=f"{y(value):.2f}",
                width=f"{max(0.5, 0.84 * room):.2f}",
                height=f"{max(0.0, height):.2f}",
                class_=f"bar {color(number)}",
            )
        )
    return _figure(title, parts, f"{title}: {len(values)} bars")


def show(value: float, digits: int = 5) -> str:
    """A number as people read it: so many digits, thousands apart, a minus that is one."""
    text = f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.{digits}g}"
    return text.replace("-", "−")


def _names(dots: Sequence[tuple[Line, Point]]) -> list[Markup]:
    """The name of each dot beside it, in its colour: where it lies on no dot and on no name."""
    taken = [(x - 6, y - 6, x + 6, y + 6) for _, (x, y) in dots]
    parts = []
    for line, (x, y) in sorted(dots, key=lambda dot: dot[1][1]):
        width = _LETTER * len(line.name)
        spots = [
            (side, left, y + up)
            for up in (0.0, -12.0, 12.0, -24.0, 24.0, 36.0)
            for side, left in (("start", x + 9), ("end", x - 9 - width))
            if left >= _LEFT and left + width <= WIDTH
        ]
        free = (
            spot
            for spot in spots
            if not any(_overlap(_box(spot[1], spot[2], width), other) for other in taken)
        )
        side, left, height = next(free, spots[0] if spots else ("start", x + 9, y))
        taken.append(_box(left, height, width))
        parts.append(
            tag(
                "text",
                line.name,
                x=_at(left if side == "start" else left + width),
                y=_at(height + 4),
                class_=f"name {color(line.number)}",
                text_anchor=side,
                data_run=line.number,
            )
        )
    return parts


_Box = tuple[float, float, float, float]


def _box(left: float, height: float, width: float) -> _Box:
    return left, height - 5.5, left + width, height + 5.5


def _overlap(a: _Box, b: _Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _scales_around(dots: Sequence[Point]) -> tuple[_Scale, _Scale]:
    xs, ys = [a for a, _ in dots], [b for _, b in dots]
    room_x = 0.18 * (max(xs) - min(xs)) or 0.2 * abs(xs[0]) or 1.0
    room_y = 0.15 * (max(ys) - min(ys)) or 0.2 * abs(ys[0]) or 1.0
    return (
        # A rate is never below 0.
        _Scale(max(min(0.0, *xs), min(xs) - room_x), max(xs) + room_x, _LEFT, WIDTH - _RIGHT),
        _Scale(min(ys) - room_y, max(ys) + room_y, HEIGHT - _BOTTOM, _TOP),
    )


def _diagonals(x: _Scale, y: _Scale) -> list[Markup]:
    """Where rate + distortion is the same: parts of lines of slope -1, cut off at the frame."""
    parts = []
    for total in ticks(x.low + y.low, x.high + y.high):
        ends = [(a, total - a) for a in (x.low, x.high)] + [(total - b, b) for b in (y.low, y.high)]
        inside = [
            (a, b) for a, b in ends if _within(a, x.low, x.high) and _within(b, y.low, y.high)
        ]
        if len(inside) < 2:
            continue
        (a, b), (c, d) = min(inside), max(inside)
        told = tag("title", f"ELBO {show(-total)}")
        parts.append(
            tag("line", told, x1=_at(x(a)), y1=_at(y(b)), x2=_at(x(c)), y2=_at(y(d)), class_="iso")
        )
        # At its right end, where the lines are farthest from the axis and its numbers.
        name = f"ELBO {_tick(-total)}"
        parts.append(
            tag("text", name, x=_at(x(c)), y=_at(y(d) - 4), text_anchor="end", class_="of-iso")
        )
    return parts


def _within(value: float, low: float, high: float) -> bool:
    slack = 1e-9 * (high - low)
    return low - slack <= value <= high + slack


def _axes(x: _Scale | None, y: _Scale, x_name: str, y_name: str) -> list[Markup]:
    base = HEIGHT - _BOTTOM
    parts = []
    for value in ticks(y.low, y.high):
        at = _at(y(value))
        parts.append(tag("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=at, y2=at, class_="grid"))
        parts.append(tag("text", _tick(value), x=_LEFT - 6, y=at, dy="0.32em", text_anchor="end"))
    for value in [] if x is None else ticks(x.low, x.high):
        assert x is not None
        at_the_edge = x(value) > WIDTH - 2 * _RIGHT
        place, anchor = (WIDTH - 2.0, "end") if at_the_edge else (x(value), "middle")
        parts.append(tag("text", _tick(value), x=_at(place), y=base + 14, text_anchor=anchor))
    parts.append(tag("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=base, y2=base, class_="axis"))
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(tag("text", x_name, x=middle, y=HEIGHT - 4, text_anchor="middle"))
    if y_name:
        parts.append(
            tag(
                "text",
                y_name,
                transform=f"translate(11 {(_TOP + base) / 2:.0f}) rotate(-90)",
                text_anchor="middle",
            )
        )
    return parts


def _dot(cx: float, cy: float, r: float, class_: str, number: int, told: Markup) -> Markup:
    return tag("circle", told, cx=_at(cx), cy=_at(cy), r=r, class_=class_, data_run=number)


def _figure(title: str, parts: Sequence[Markup], label: str) -> Markup:
    drawing = tag("svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=label)
    return tag("figure", tag("figcaption", title), drawing, class_="chart")


def _at(value: float) -> str:
    return f"{value:.1f}"


def _tick(value: float) -> str:
    if (value and abs(value) < 1e-3) or abs(value) >= 1e6:
        return f"{value:.0e}".replace("-", "−")
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}").replace("-", "−")
