"""Plots as PNG files, by matplotlib: imported when a plot is drawn, which takes a second."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaezoo.io import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

Point = tuple[float, float]
Color = tuple[int, int, int]

COLORS: tuple[Color, ...] = (
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
"""One colour for each series or category, in order."""

INK, FAINT, GRID = "#282c34", "#6e747e", "#e4e6ea"
_DPI = 150
_PANEL_INCHES = (4.6, 3.0)
_MAX_NAME = 30
"""Characters that a name before a bar has at most."""
_MAX_POINTS = 1000
_MAX_PANELS, _MAX_CHANNELS = 8, 4
"""Signals, and channels of them, that are drawn."""
_LARGEST = 1e150
"""Larger values are left out: the length of an axis would overflow."""


@dataclass(frozen=True)
class Series:
    """One series of a line plot.

    markers: whether each point has a marker. line: whether the points are joined. settling: the
    fraction of the points, from the start, that may lie outside the visible range.
    """

    name: str
    points: Sequence[Point]
    markers: bool = False
    line: bool = True
    settling: float = 0.0


def save_curves(path: Path, history: Iterable[Mapping[str, Any]]) -> bool:
    """Write `draw_curves` as a PNG. Returns False, and writes nothing, if there are no terms."""
    figure = draw_curves(history)
    if figure is not None:
        save_figure(path, figure)
    return figure is not None


def draw_curves(history: Iterable[Mapping[str, Any]]) -> Figure | None:
    """Plot the terms of the loss over the training steps; None if there are no terms.

    history: mappings with `kind` (train or validation), `step`, and `terms` by name, in nats per
    example; values that are None or not finite leave a gap.
    """
    lines = list(history)

    def points(kind: str, name: str) -> list[Point]:
        return [
            (float(line["step"]), float(line["terms"][name]))
            for line in lines
            if line["kind"] == kind and line["terms"].get(name) is not None
        ]

    names = dict.fromkeys(name for line in lines for name in line["terms"])
    plots = {
        name.replace("_", " "): [
            # The first steps may leave the plot: their large values would flatten the rest.
            Series("training", points("train", name), settling=0.05),
            Series("held out", points("validation", name), markers=True, line=False),
        ]
        for name in names
    }
    return _line_plots(plots) if plots else None


def save_lines(path: Path, plots: Mapping[str, Sequence[Series]]) -> bool:
    """Draw a line plot for each title, as one PNG; False, and nothing written, if there are none.

    Points that are not finite are left out. Long series are thinned to about a thousand points.
    """
    if not plots:
        return False
    save_figure(path, _line_plots(plots))
    return True


def _line_plots(plots: Mapping[str, Sequence[Series]]) -> Figure:
    figure, panels = _panels(plots, _PANEL_INCHES[1])
    for axes, series in zip(panels, plots.values(), strict=True):
        _draw_lines(axes, series)
    return figure


def save_bars(path: Path, plots: Mapping[str, Sequence[tuple[str, float]]]) -> bool:
    """Draw a horizontal bar for each named value, a plot for each title, as one PNG.

    Values are finite and not negative. Returns False, and writes nothing, if there are no plots.
    """
    if not plots:
        return False
    most = max(len(bars) for bars in plots.values())
    figure, panels = _panels(plots, 0.6 + 0.2 * most)
    for axes, bars in zip(panels, plots.values(), strict=True):
        values = [value for _, value in bars]
        drawn = axes.barh(
            range(len(bars)), values, height=0.6, color=hex_color(COLORS[0]), linewidth=0
        )
        axes.bar_label(drawn, list(map(_format, values)), padding=4, fontsize=8, color=FAINT)
        axes.set_yticks(range(len(bars)), [_shorten(name) for name, _ in bars], parse_math=False)
        axes.set_ylim(most - 0.5, -0.5)
        axes.set_xlim(0, (max(values) or 1.0) * 1.15)
        axes.xaxis.set_visible(False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, labelsize=8, labelcolor=INK)
    save_figure(path, figure)
    return True


def draw_signals(panels: Sequence[tuple[str, Tensor]], names: Sequence[str] = ()) -> bytes:
    """Draw signals as curves: the bytes of a PNG.

    panels: a title and curves, [k, channels, length], one axis for each channel. names: of the
    curves; without them they are steps, from dark to light. A channel has one range everywhere. A
    line says how many panels and channels of how many are drawn.
    """
    from matplotlib import colormaps

    kept, of = panels[:_MAX_PANELS], panels[0][1].shape[1]
    channels, columns = min(of, _MAX_CHANNELS), min(4, len(kept))
    rows = math.ceil(len(kept) / columns)
    figure = new_figure(0.4 + 2.3 * columns, 0.6 + rows * (0.2 + 0.9 * channels))
    grid = figure.subplots(rows * channels, columns, squeeze=False, sharex=True, sharey="row")
    for axes in grid.flat:
        axes.set_axis_off()
    # Like the other plots, without values that are not finite or would overflow an axis.
    clean = [c.double().where(c.abs() < _LARGEST, math.nan).transpose(0, 1) for _, c in kept]
    flat = [[y for c in clean for y in c[n].flatten().tolist() if y == y] for n in range(channels)]
    steps = len(kept[0][1])
    scale = [colormaps["viridis"](i / steps) for i in range(steps)]
    colors = [hex_color(color) for color in (COLORS[7], COLORS[1])] if names else scale
    for number, (title, _) in enumerate(kept):
        for channel, curves in enumerate(clean[number][:channels].tolist()):
            axes = grid[number // columns * channels + channel, number % columns]
            axes.set_axis_on()
            for curve, color in zip(curves, colors, strict=True):
                axes.plot(curve, color=color, linewidth=1.0)
            axes.set_ylim(*_range(flat[channel] or [0.0], margin=0.05))
            axes.tick_params(length=0, labelsize=7, labelcolor=FAINT)
            axes.spines[["right", "top"]].set_visible(False)
            axes.spines[["left", "bottom"]].set_color(GRID)
            if channel == 0:
                axes.set_title(title, loc="left", color=INK, fontsize=8.5, parse_math=False)
    if names:
        add_legend(figure, grid[0, 0].get_lines(), names, loc="outside upper right", ncols=2)
    said = [f"{len(kept)} of {len(panels)} examples"] if len(kept) < len(panels) else []
    of_how_many = f"channels 1 to {channels} of {of}" if channels < of else f"{of} channels"
    said += [f"{of_how_many}, from top to bottom"] if of > 1 else []
    figure.supxlabel("; ".join(said), color=FAINT, fontsize=8.5)
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    # Notes about its font cache would stand among the lines of a command.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def _panels(titles: Collection[str], height: float) -> tuple[Figure, list[Axes]]:
    """A figure with a plot for each title, in two columns, each `height` inches high."""
    columns = min(2, len(titles))
    rows = math.ceil(len(titles) / columns)
    figure = new_figure(columns * _PANEL_INCHES[0], rows * height)
    return figure, [add_plot(figure, title, rows, columns, n) for n, title in enumerate(titles, 1)]


def save_figure(path: Path, figure: Figure) -> None:
    """Write a figure as a PNG."""
    with warnings.catch_warnings():
        # Of characters that its font does not have: they are drawn as boxes.
        warnings.simplefilter("ignore", UserWarning)
        atomic_write(path, lambda temporary: figure.savefig(temporary, format="png"))


def _draw_lines(axes: Axes, series: Sequence[Series]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(length=0, labelsize=8, labelcolor=FAINT)
    drawn = [(one, shown) for one in series if (shown := _thin(one.points))]
    if not drawn:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no finite value", color=FAINT, ha="center", va="center", fontsize=9)
        return
    handles = []
    for number, (one, shown) in enumerate(drawn):
        handles += axes.plot(
            *zip(*shown, strict=True),
            color=hex_color(COLORS[number % len(COLORS)]),
            linestyle="-" if one.line else "none",
            marker="o" if one.markers or len(shown) == 1 else "none",
            linewidth=1.5,
            markersize=4.5,
            markeredgewidth=0,
        )
    settled = [y for one, shown in drawn for _, y in shown[int(len(shown) * one.settling) :]]
    axes.set_xlim(*_range([x for _, shown in drawn for x, _ in shown], margin=0.02))
    axes.set_ylim(*_range(settled, margin=0.05))
    axes.grid(axis="y", color=GRID)
    axes.set_axisbelow(True)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=5))
        axis.set_major_formatter(lambda value, _: _format(value))
    add_legend(axes, handles, [one.name for one, _ in drawn], loc="best")


def add_plot(figure: Figure, title: str, *position: int) -> Axes:
    """Add a plot with a title. position: rows, columns and number, as for add_subplot."""
    axes = figure.add_subplot(*position)
    axes.set_title(title, loc="left", color=INK, fontsize=10.5, parse_math=False)
    return axes


def add_legend(
    axes: Axes | Figure, handles: Sequence[Any], names: Sequence[str], **place: Any
) -> None:
    """Add a legend with these names. place: arguments of matplotlib's legend."""
    legend = axes.legend(handles, ["name"] * len(names), frameon=False, fontsize=8, **place)
    for text, name in zip(legend.get_texts(), names, strict=True):
        # Set as plain text: `$` would start a formula, and a leading `_` would hide the entry.
        text.set(text=_shorten(name), parse_math=False, color=INK)


def hex_color(color: Color) -> str:
    """The colour as matplotlib reads it: `#3168ac`."""
    return f"#{bytes(color).hex()}"


def _thin(points: Sequence[Point]) -> list[Point]:
    finite = [(x, y) for x, y in points if abs(x) < _LARGEST and abs(y) < _LARGEST]
    every = max(1, len(finite) // _MAX_POINTS)
    return finite[::every] + finite[-1:] if every > 1 else finite


def _range(values: Sequence[float], margin: float) -> tuple[float, float]:
    """The visible range, with a margin; around the value if there is only one."""
    low, high = min(values), max(values)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        width = max(0.1 * abs(low), 1e-6)
        return low - width, high + width
    return low - margin * (high - low), high + margin * (high - low)


def _shorten(name: str) -> str:
    return name if len(name) <= _MAX_NAME else "…" + name[1 - _MAX_NAME :]


def _format(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
