"""A report as a picture: images a second against batch size, a line a model and setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vaezoo.evaluation.charts import Series, save_charts


def save_plot(path: Path, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Write a PNG with a chart a mode; False, and nothing written, if no row has a rate."""
    charts: dict[str, dict[str, list[tuple[float, float]]]] = {}
    settings = {(row["precision"], row["compile"]) for row in rows}
    for row in rows:
        if row["images_per_second"] is None:
            continue
        name = row["model"]
        if len(settings) > 1:
            name += f" {row['precision']}" + (" compiled" if row["compile"] == "on" else "")
        lines = charts.setdefault(f"{row['mode']}, images a second by batch size", {})
        lines.setdefault(name, []).append((row["batch_size"], row["images_per_second"]))
    return save_charts(
        path,
        {
            title: [Series(name, sorted(points), dots=True) for name, points in lines.items()]
            for title, lines in charts.items()
        },
    )
