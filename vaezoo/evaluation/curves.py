"""How training went: a chart a term, training as a line, held-out values as dots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vaezoo.evaluation.charts import Point, Series, save_charts

_SETTLING = 0.05
"""The first twentieth of training may leave the chart, or it would squash the rest."""


def save_curves(path: Path, history: Iterable[Mapping[str, Any]]) -> bool:
    """Draw the lines of a run's metrics as a PNG; False, and nothing written, if there are none.

    history: mappings with `kind` (train or validation), `step`, and `terms` by name, in nats per
    image; values that are None or not finite leave a gap.
    """
    lines = list(history)
    names = dict.fromkeys(name for line in lines for name in line["terms"])
    return save_charts(
        path,
        {
            name.replace("_", " "): [
                Series("training", _points(lines, "train", name), settling=_SETTLING),
                Series("held out", _points(lines, "validation", name), dots=True, line=False),
            ]
            for name in names
        },
    )


def _points(lines: Sequence[Mapping[str, Any]], kind: str, name: str) -> list[Point]:
    return [
        (float(line["step"]), float(line["terms"][name]))
        for line in lines
        if line["kind"] == kind and line["terms"].get(name) is not None
    ]
