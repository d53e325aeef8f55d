"""A report as a picture: images a second, against batch size or a bar a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vaezoo.evaluation.charts import COLORS, Series, save_bars, save_charts


def save_plot(path: Path, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Write a PNG with a chart a mode; False, and nothing written, if no row has a rate.

    A line a model and setting against batch size where there are several sizes, and no more lines
    than colours to tell them by; else a bar a row.
    """
    rows = [row for row in rows if row["images_per_second"] is not None]
    modes = list(dict.fromkeys(row["mode"] for row in rows))
    settings = {(row["precision"], row["compile"]) for row in rows}
    sizes = {row["batch_size"] for row in rows}

    def name(row: Mapping[str, Any]) -> str:
        compiled = " compiled" if row["compile"] == "on" else ""
        return row["model"] + (f" {row['precision']}{compiled}" if len(settings) > 1 else "")

    if len(sizes) > 1 and len({name(row) for row in rows}) <= len(COLORS):
        charts: dict[str, list[Series]] = {}
        for mode in modes:
            lines: dict[str, list[tuple[float, float]]] = {}
            for row in (row for row in rows if row["mode"] == mode):
                point = (row["batch_size"], row["images_per_second"])
                lines.setdefault(name(row), []).append(point)
            charts[f"{mode}, images a second by batch size"] = [
                Series(name, sorted(points), dots=True) for name, points in lines.items()
            ]
        return save_charts(path, charts)
    return save_bars(
        path,
        {
            f"{mode}, images a second": [
                (
                    f"{name(row)} {row['batch_size']}" if len(sizes) > 1 else name(row),
                    row["images_per_second"],
                )
                for row in rows
                if row["mode"] == mode
            ]
            for mode in modes
        },
    )
