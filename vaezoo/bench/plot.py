"""The rates of a benchmark report as a picture, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vaezoo.io import atomic_write

_MOST_LINES = 7
"""More lines than this cannot be told apart by colour."""


def save_plot(path: Path, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Write a PNG with a panel for each mode; False, and no file, if no row has a rate.

    Rates are drawn as lines over the batch size if there are several sizes and few models and
    settings; else as one bar for each row.
    """
    from matplotlib.figure import Figure

    rows = [row for row in rows if row["images_per_second"] is not None]
    if not rows:
        return False
    settings = {(row["precision"], row["compile"]) for row in rows}
    sizes = {row["batch_size"] for row in rows}
    panels: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for row in rows:
        name = row["model"]
        if len(settings) > 1:
            name += f" {row['precision']}" + (" compiled" if row["compile"] == "on" else "")
        point = (row["batch_size"], row["images_per_second"])
        panels.setdefault(row["mode"], {}).setdefault(name, []).append(point)
    lines = len(sizes) > 1 and len({name for panel in panels.values() for name in panel}) <= (
        _MOST_LINES
    )
    most_bars = max(sum(map(len, panel.values())) for panel in panels.values())
    height = 4.0 if lines else 1.2 + 0.2 * most_bars
    figure = Figure(figsize=(5 * len(panels), height), layout="constrained")
    every_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (mode, panel) in zip(every_axes, panels.items(), strict=True):
        axes.set_title(mode)
        if lines:
            for name, points in panel.items():
                axes.plot(*zip(*sorted(points), strict=True), marker="o", label=name)
            axes.set(xlabel="batch size", ylabel="images per second", ylim=(0, None))
            axes.legend()
        else:
            bars = [
                (f"{name} {size}" if len(sizes) > 1 else name, rate)
                for name, points in panel.items()
                for size, rate in points
            ]
            axes.barh(range(len(bars)), [rate for _, rate in bars])
            axes.set_yticks(range(len(bars)), [name for name, _ in bars])
            axes.invert_yaxis()
            axes.set_xlabel("images per second")
    atomic_write(path, lambda temporary: figure.savefig(temporary, format="png"))
    return True
