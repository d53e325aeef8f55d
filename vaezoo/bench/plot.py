"""The rates of a benchmark report as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vaezoo.evaluation.plots import COLORS, Series, save_bars, save_lines


def save_plot(path: Path, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Write a PNG with a plot for each mode; False, and no file, if no row has a rate.

    Rates are lines over the batch size if there are several sizes, and a colour for each model and
    setting; else there is one bar for each row.
    """
    rows = [row for row in rows if row["images_per_second"] is not None]
    settings = {(row["precision"], row["compile"]) for row in rows}
    sizes = {row["batch_size"] for row in rows}
    modes: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for row in rows:
        name = row["model"]
        if len(settings) > 1:
            name += f" {row['precision']}" + (" compiled" if row["compile"] == "on" else "")
        point = (row["batch_size"], row["images_per_second"])
        modes.setdefault(row["mode"], {}).setdefault(name, []).append(point)
    names = {name for lines in modes.values() for name in lines}
    if len(sizes) > 1 and len(names) <= len(COLORS):
        return save_lines(
            path,
            {
                f"{mode}, images a second by batch size": [
                    Series(name, sorted(points), markers=True) for name, points in lines.items()
                ]
                for mode, lines in modes.items()
            },
        )
    return save_bars(
        path,
        {
            f"{mode}, images a second": [
                (f"{name} {size}" if len(sizes) > 1 else name, rate)
                for name, points in lines.items()
                for size, rate in points
            ]
            for mode, lines in modes.items()
        },
    )
