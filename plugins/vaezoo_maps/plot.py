"""The picture of a map: points in the colours of their values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from vaezoo.evaluation.plots import (
    COLORS,
    FAINT,
    GRID,
    INK,
    add_legend,
    add_plot,
    hex_color,
    new_figure,
    save_figure,
)

MAX_CATEGORIES = 20
"""More different values than this get the colours of a scale, and seven of them a legend entry."""


def save_scatter(
    path: Path,
    points: Tensor,
    values: Tensor | None,
    names: Sequence[str],
    *,
    title: str,
    axes: tuple[str, str] = ("", ""),
) -> None:
    """Draw points, [n, 2], as a PNG. values: an integer for each, which gives its colour, or None.

    names: of the values 0, 1, ...; a value without a name is shown as a number, -1 as unknown. One
    unit has the same length on both axes, so that distances mean the same in each direction.
    """
    figure = new_figure(8.2, 6.4)
    panel = add_plot(figure, title)
    colors = palette(values)
    used = INK if values is None else [hex_color(colors[int(value)]) for value in values.tolist()]
    panel.scatter(points[:, 0].numpy(), points[:, 1].numpy(), s=14, c=used, linewidths=0)
    panel.set_aspect("equal", adjustable="datalim")
    panel.set(xticks=[], yticks=[])
    panel.set_xlabel(axes[0], color=FAINT, fontsize=9)
    panel.set_ylabel(axes[1], color=FAINT, fontsize=9)
    panel.spines[:].set_color(GRID)
    entries = list(colors.items())
    if len(entries) > MAX_CATEGORIES:
        entries = [entries[round(i * (len(entries) - 1) / 6)] for i in range(7)]
    if entries:
        handles = [panel.scatter([], [], s=40, color=hex_color(color)) for _, color in entries]
        known = [name_of(value, names) for value, _ in entries]
        add_legend(panel, handles, known, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    save_figure(path, figure)


def palette(values: Tensor | None) -> dict[int, tuple[int, int, int]]:
    """A colour for each value that occurs: categories if they are few, else a scale."""
    if values is None:
        return {}
    present = sorted({int(v) for v in values.tolist()})
    if len(present) <= len(COLORS):
        return dict(zip(present, COLORS, strict=False))
    from matplotlib import colormaps

    count = len(present)
    few = count <= MAX_CATEGORIES
    scale = colormaps["tab20" if few else "viridis"]
    shades = scale(range(count) if few else [i / (count - 1) for i in range(count)])
    return {
        value: (round(red * 255), round(green * 255), round(blue * 255))
        for value, (red, green, blue, _) in zip(present, shades.tolist(), strict=True)
    }


def name_of(value: int, names: Sequence[str]) -> str:
    """The name of a category; its number if it has none; "unknown" for negative numbers."""
    if value < 0:
        return "unknown"
    return names[value] if value < len(names) else str(value)
