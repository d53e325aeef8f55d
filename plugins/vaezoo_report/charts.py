"""The page's SVG charts: training curves, rate and distortion, KL of latents.

A chart is a list of shapes with places in user units of the SVG. The template draws them; colours
come from the page's style sheet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vaezoo.evaluation.latents import ACTIVE_VARIANCE

from . import compare
from .compare import display_name, format_number
from .summary import Latent, RunSummary

WIDTH, HEIGHT = 380, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 12, 12, 34
_X, _Y = (_LEFT, WIDTH - _RIGHT), (HEIGHT - _BOTTOM, _TOP)
NUM_COLORS = 10
_LETTER_WIDTH = 6.3
_BURN_IN = 0.05
"""This fraction of a curve's start may leave the chart: it would compress the rest."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One run in a chart. number: of the run; it gives the colour. dots: held-out values."""

    name: str
    number: int
    points: Sequence[Point]
    dots: Sequence[Point] = ()


@dataclass(frozen=True)
class Shape:
    """An SVG element: its name, attributes, text, and tooltip (its <title>)."""

    element: str
    attributes: Mapping[str, object]
    text: str = ""
    tooltip: str = ""


@dataclass(frozen=True)
class Chart:
    """A titled drawing. label: the description for screen readers."""

    title: str
    label: str
    shapes: list[Shape] = field(default_factory=list)


def color(number: int) -> str:
    """The CSS classes of a run's colour; from the eleventh run on also dashed."""
    return f"c{number % NUM_COLORS}" + (" dashed" if number >= NUM_COLORS else "")


class _Scale:
    """A linear map from values in [low, high] to positions from `start` to `end`, clamped."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        if high - low <= 1e-9 * max(abs(low), abs(high), 1e-300):
            width = max(0.1 * abs(low), 1e-6)
            low, high = low - width, high + width
        self.low, self.high, self.start, self.end = low, high, start, end

    def __call__(self, value: float) -> float:
        fraction = (value - self.low) / (self.high - self.low)
        return self.start + min(1.0, max(0.0, fraction)) * (self.end - self.start)

    def contains(self, value: float, slack: float = 0.0) -> bool:
        margin = slack * (self.high - self.low)
        return self.low - margin <= value <= self.high + margin


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round values in [low, high]."""
    from matplotlib.ticker import MaxNLocator  # here: matplotlib takes half a second

    ticks = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(tick) for tick in ticks if low <= tick <= high]


def draw_curves(title: str, lines: Sequence[Line], y_name: str, x_name: str = "step") -> Chart:
    """A curve for each run; held-out values are dots."""
    xs = [a for line in lines for a, _ in (*line.points, *line.dots)]
    kept = [p for line in lines for p in line.points[int(_BURN_IN * len(line.points)) :]]
    ys = [b for _, b in (*kept, *(dot for line in lines for dot in line.dots))]
    margin = 0.05 * (max(ys) - min(ys))
    x, y = _Scale(min(xs), max(xs), *_X), _Scale(min(ys) - margin, max(ys) + margin, *_Y)
    shapes = _axes(x, y, x_name, y_name)
    for line in lines:
        if len(line.points) > 1:
            shapes.append(_path(line, line.points, x, y, "line", f"{line.name}, training"))
        for a, b in line.dots if len(line.points) > 1 else (*line.points, *line.dots):
            tip = f"{line.name}: {format_number(b)} held out, {x_name} {format_number(a)}"
            shapes.append(_dot(line, x(a), y(b), 2.6, tip))
    return Chart(title, f"{title}: {len(lines)} curves over {x_name}s", shapes)


def draw_rate_distortion(title: str, lines: Sequence[Line]) -> Chart:
    """Rate on x, distortion on y: a dot for each run with its path; diagonals have equal ELBO."""
    dots = [(line, dot) for line in lines for dot in line.dots]
    xs, ys = [a for _, (a, _) in dots], [b for _, (_, b) in dots]
    margin_x = 0.18 * (max(xs) - min(xs)) or 0.2 * abs(xs[0]) or 1.0
    margin_y = 0.15 * (max(ys) - min(ys)) or 0.2 * abs(ys[0]) or 1.0
    # A rate is never negative.
    x = _Scale(max(min(0.0, *xs), min(xs) - margin_x), max(xs) + margin_x, *_X)
    y = _Scale(min(ys) - margin_y, max(ys) + margin_y, *_Y)
    shapes = _axes(x, y, "rate, nats", "distortion, nats") + _equal_elbo_lines(x, y)
    for line in lines:
        path = [point for point in line.points if x.contains(point[0]) and y.contains(point[1])]
        if len(path) > 1:
            shapes.append(_path(line, path, x, y, "line faint"))
        for a, b in line.dots:
            rate, distortion, elbo = map(format_number, (a, b, -(a + b)))
            tip = f"{line.name}: rate {rate}, distortion {distortion}, ELBO {elbo}"
            shapes.append(_dot(line, x(a), y(b), 5, tip))
    shapes += _names([(line, (x(a), y(b))) for line, (a, b) in dots])
    return Chart(title, f"{title}: rate and distortion of {len(lines)} runs", shapes)


def draw_bars(
    title: str, number: int, values: Sequence[tuple[str, float]], x_name: str, unit: str
) -> Chart:
    """Bars in the given order. values: (tooltip, height) of each."""
    top = max((value for _, value in values), default=0.0) or 1.0
    y = _Scale(0.0, top * 1.05, *_Y)
    shapes = _axes(None, y, x_name, unit)
    step = (WIDTH - _LEFT - _RIGHT) / max(1, len(values))
    for i, (tooltip, value) in enumerate(values):
        rectangle = {
            "x": f"{_LEFT + i * step + 0.08 * step:.2f}",
            "y": f"{y(value):.2f}",
            "width": f"{max(0.5, 0.84 * step):.2f}",
            "height": f"{max(0.0, y(0.0) - y(value)):.2f}",
            "class": f"bar {color(number)}",
        }
        shapes.append(Shape("rect", rectangle, tooltip=tooltip))
    return Chart(title, f"{title}: {len(values)} bars", shapes)


def _path(
    line: Line, points: Sequence[Point], x: _Scale, y: _Scale, class_: str, tooltip: str = ""
) -> Shape:
    d = "M" + "L".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
    attributes = {"d": d, "class": f"{class_} {color(line.number)}", "data-run": line.number}
    return Shape("path", attributes, tooltip=tooltip)


def _dot(line: Line, cx: float, cy: float, radius: float, tooltip: str) -> Shape:
    place = {"cx": f"{cx:.1f}", "cy": f"{cy:.1f}", "r": radius}
    style = {"class": f"dot {color(line.number)}", "data-run": line.number}
    return Shape("circle", place | style, tooltip=tooltip)


def _text(text: str, x: float, y: float, anchor: str, **attributes: object) -> Shape:
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}
    return Shape("text", place | attributes, text)


def _segment(x1: float, y1: float, x2: float, y2: float, class_: str, tooltip: str = "") -> Shape:
    ends = {"x1": f"{x1:.1f}", "y1": f"{y1:.1f}", "x2": f"{x2:.1f}", "y2": f"{y2:.1f}"}
    return Shape("line", {**ends, "class": class_}, tooltip=tooltip)


def _names(dots: Sequence[tuple[Line, Point]]) -> list[Shape]:
    """The name of each dot beside it, where it overlaps no dot and no other name."""
    occupied = [(x - 6, y - 6, x + 6, y + 6) for _, (x, y) in dots]
    shapes = []
    for line, (x, y) in sorted(dots, key=lambda dot: dot[1][1]):
        width = _LETTER_WIDTH * len(line.name)
        places = [
            (left, y + offset)
            for offset in (0.0, -12.0, 12.0, -24.0, 24.0, 36.0)
            for left in (x + 9, x - 9 - width)
            if left >= _LEFT and left + width <= WIDTH
        ] or [(x + 9, y)]
        free = (p for p in places if not any(_overlap(_box(*p, width), box) for box in occupied))
        left, height = next(free, places[0])
        occupied.append(_box(left, height, width))
        attributes = {"class": f"name {color(line.number)}", "data-run": line.number}
        at, anchor = (left, "start") if left > x else (left + width, "end")
        shapes.append(_text(line.name, at, height + 4, anchor, **attributes))
    return shapes


_Box = tuple[float, float, float, float]


def _box(left: float, height: float, width: float) -> _Box:
    return left, height - 5.5, left + width, height + 5.5


def _overlap(a: _Box, b: _Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _equal_elbo_lines(x: _Scale, y: _Scale) -> list[Shape]:
    """Lines of slope −1, on which rate + distortion is constant, cut off at the frame."""
    shapes = []
    for total in _ticks(x.low + y.low, x.high + y.high):
        ends = [(a, total - a) for a in (x.low, x.high)] + [(total - b, b) for b in (y.low, y.high)]
        inside = [(a, b) for a, b in ends if x.contains(a, 1e-9) and y.contains(b, 1e-9)]
        if len(inside) < 2:
            continue
        (a, b), (c, d) = min(inside), max(inside)
        shapes.append(_segment(x(a), y(b), x(c), y(d), "iso", f"ELBO {format_number(-total)}"))
        # At the right end, where the lines are farthest from the axis and its numbers.
        label = f"ELBO {_tick_label(-total)}"
        shapes.append(_text(label, x(c), y(d) - 4, "end", **{"class": "of-iso"}))
    return shapes


def _axes(x: _Scale | None, y: _Scale, x_name: str, y_name: str) -> list[Shape]:
    (left, right), base = _X, _Y[0]
    shapes = []
    for value in _ticks(y.low, y.high):
        shapes.append(_segment(left, y(value), right, y(value), "grid"))
        shapes.append(_text(_tick_label(value), left - 6, y(value), "end", dy="0.32em"))
    if x is not None:
        for value in _ticks(x.low, x.high):
            at_edge = x(value) > WIDTH - 2 * _RIGHT
            place, anchor = (WIDTH - 2.0, "end") if at_edge else (x(value), "middle")
            shapes.append(_text(_tick_label(value), place, base + 14, anchor))
    shapes.append(_segment(left, base, right, base, "axis"))
    shapes.append(_text(x_name, (left + right) / 2, HEIGHT - 4, "middle"))
    turned = f"translate(11 {(_TOP + base) / 2:.0f}) rotate(-90)"
    shapes.append(Shape("text", {"transform": turned, "text-anchor": "middle"}, y_name))
    return shapes


def _tick_label(value: float) -> str:
    if (value and abs(value) < 1e-3) or abs(value) >= 1e6:
        return f"{value:.0e}".replace("-", "−")
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}").replace("-", "−")


_MAX_BARS = 64
_IN_NATS = ("elbo", "rate", "distortion", "loss")


@dataclass(frozen=True)
class CurveGroup:
    """The training curves of the runs on one data set. members: indices of these runs."""

    data: str
    members: Sequence[int]
    charts: Sequence[Chart]


def curve_groups(runs: Sequence[RunSummary]) -> list[CurveGroup]:
    """A group of charts for each data set, a chart for each term."""
    by_data: dict[str, list[int]] = {}
    for i, run in enumerate(runs):
        by_data.setdefault(run.group or run.name, []).append(i)
    groups = []
    for members in by_data.values():
        inside = [runs[i] for i in members]
        drawn = []
        for term in compare.term_names(inside):
            kinds = ("train", "validation")
            terms = [[compare.points(runs[i], kind, term) for kind in kinds] for i in members]
            drawable = zip(members, terms, strict=True)
            lines = [Line(runs[i].name, i, *pair) for i, pair in drawable if any(pair)]
            if lines:
                unit = "nats" if term in _IN_NATS else display_name(term)
                drawn.append(draw_curves(display_name(term), lines, unit))
        if drawn:
            groups.append(CurveGroup(inside[0].data, members, drawn))
    return groups


def rate_distortion(runs: Sequence[RunSummary]) -> list[Chart]:
    """A chart for each kind of likelihood: distortions of different kinds do not compare."""
    kinds: dict[tuple[str, str], list[Line]] = {}
    for i, run in enumerate(runs):
        rate, distortion = (run.numbers.get(name) for name in ("rate", "distortion"))
        if rate is None or distortion is None or rate.value is None or distortion.value is None:
            continue
        # `comparable` ends with the kind of likelihood: "data ..., density".
        kind = distortion.comparable.rpartition(", ")[2] or run.likelihood
        terms = [compare.points(run, "validation", term) for term in ("rate", "distortion")]
        path = [(a, b) for (_, a), (_, b) in zip(*terms, strict=False)]
        line = Line(run.name, i, path, [(rate.value, distortion.value)])
        kinds.setdefault((run.group, kind), []).append(line)
    return [
        draw_rate_distortion(f"{runs[lines[0].number].data}, by {kind}", lines)
        for (_, kind), lines in kinds.items()
    ]


def latent_charts(runs: Sequence[RunSummary]) -> list[tuple[int, str, Chart]]:
    """(index of the run, source of its latents, bars of their KL) for each run with latents."""
    found = []
    for i, run in enumerate(runs):
        if not run.latents:
            continue
        by_kl = all(latent.kl is not None for latent in run.latents)
        unit = "KL, nats" if by_kl else "variance of means"
        values = sorted(
            ((f"z{z.number}", (z.kl if by_kl else z.variance) or 0.0) for z in run.latents),
            key=lambda pair: -pair[1],
        )
        bars = [(f"{z}: {format_number(value)} {unit}", value) for z, value in values[:_MAX_BARS]]
        count = f"{len(bars)} of {len(values)}" if len(bars) < len(values) else f"{len(values)}"
        title = f"{run.name}: {_count_active(run.latents)}"
        chart = draw_bars(title, i, bars, f"{count} latents, the most informative first", unit)
        found.append((i, run.latents_source, chart))
    return found


def _count_active(latents: Sequence[Latent]) -> str:
    variances = [latent.variance for latent in latents if latent.variance is not None]
    if len(variances) < len(latents):  # categories have no mean that could vary
        return f"{len(latents)} latents"
    active = sum(variance > ACTIVE_VARIANCE for variance in variances)
    return f"{active} of {len(latents)} active"
