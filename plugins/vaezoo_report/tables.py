"""The contents of the page's tables: numbers, seeds, options and the glossary."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vaezoo import MetricSpec
from vaezoo.evaluation.metric import MetricResult
from vaezoo.evaluation.seeds import aggregate_seeds, group_by_config, group_name
from vaezoo.plugins.registry import registry

from . import compare
from .compare import display_name, format_number
from .summary import RunSummary

_TRAINING = {
    "images_per_second": ("images/s", "Training examples per second, without validation."),
    "wall_seconds": ("seconds", "Duration of training, with validation and checkpoints."),
    "steps": ("steps", "Number of training steps."),
    "parameters": ("parameters", "Number of trained parameters."),
}
_ARROWS = {"higher": " ↑", "lower": " ↓"}
_DIRECTIONS = {"higher": " Higher is better.", "lower": " Lower is better."}


@dataclass(frozen=True)
class Column:
    """A metric of the table of numbers. name: of the metric."""

    name: str
    heading: str
    explanation: str
    direction: str = "neither"

    @property
    def arrow(self) -> str:
        return _ARROWS.get(self.direction, "")


@dataclass(frozen=True)
class Cell:
    """A cell of a table of numbers. text: "" where there is no value, and tip says why.

    error: "± " and the uncertainty of the value, or its standard deviation over seeds.
    attributes: of the element, as data for sorting and checking.
    """

    text: str
    tip: str
    error: str = ""
    is_best: bool = False
    attributes: Mapping[str, object] | None = None


@dataclass(frozen=True)
class Row:
    """A row of a table of numbers. runs: the indices of the runs that it is about."""

    name: str
    runs: Sequence[int]
    cells: Sequence[Cell]


def columns(runs: Sequence[RunSummary]) -> list[Column]:
    """A column for each number that at least one run has; those of training come last."""
    names = dict.fromkeys(
        name for run in runs for name, number in run.numbers.items() if number.value is not None
    )
    return [_column(name) for name in sorted(names, key=lambda name: name in _TRAINING)]


def _column(name: str) -> Column:
    if name in _TRAINING:
        return Column(name, *_TRAINING[name])
    spec = next((spec for spec in registry().specs("metric") if spec.name == name), None)
    if not isinstance(spec, MetricSpec):
        return Column(name, display_name(name), "No installed plugin defines this metric.")
    meaning = f"{spec.summary}: {spec.formula}. {spec.paper}".rstrip(". ") + "."
    unit = f" In {spec.unit}." if spec.unit else ""
    meaning += unit + _DIRECTIONS.get(spec.direction, "")
    return Column(name, display_name(name), meaning, spec.direction)


def number_rows(runs: Sequence[RunSummary], metrics: Sequence[Column]) -> list[Row]:
    """A row for each run."""
    best = {metric.name: compare.best(runs, metric.name, metric.direction) for metric in metrics}
    return [
        Row(run.name, [i], [_cell(run, metric, i in best[metric.name]) for metric in metrics])
        for i, run in enumerate(runs)
    ]


def _cell(run: RunSummary, metric: Column, is_best: bool) -> Cell:
    number = run.numbers.get(metric.name, MetricResult(None))
    if number.value is None:
        return Cell("", number.note or "not measured")
    uncertainty = "" if number.uncertainty is None else f"± {format_number(number.uncertainty, 2)}"
    data = {"data-value": repr(number.value), "data-metric": metric.name, "data-of": run.name}
    tip = " ".join(filter(None, (uncertainty, number.note)))
    return Cell(format_number(number.value), tip, uncertainty, is_best, data)


def seed_rows(runs: Sequence[RunSummary], metrics: Sequence[Column]) -> list[Row]:
    """A row for each configuration that was trained with several seeds."""
    # A run whose configuration could not be read is a group of its own.
    data = [run.group if run.config else run.name for run in runs]
    rows = []
    for members in group_by_config([run.config for run in runs], data):
        if len(members) == 1:
            continue
        inside = [runs[i] for i in members]
        cells = [_seed_cell(inside, metric) for metric in metrics if metric.name not in _TRAINING]
        rows.append(Row(group_name([run.name for run in inside]), members, cells))
    return rows


def _seed_cell(runs: Sequence[RunSummary], metric: Column) -> Cell:
    """The mean and standard deviation of one metric over the seeds of one configuration."""
    numbers = [run.numbers.get(metric.name, MetricResult(None)) for run in runs]
    found = aggregate_seeds([n.value for n in numbers], [n.uncertainty for n in numbers])
    if found.value is None:
        return Cell("", next((n.note for n in numbers if n.note), "not measured"))
    values = ", ".join("–" if value is None else format_number(value) for value in found.values)
    tip = f"of {len(runs)} runs: {values}"
    if found.uncertainty is not None:
        tip += f"; each by itself ± {format_number(found.uncertainty, 2)}"
    names = json.dumps([run.name for run in runs])
    data = {"data-value": repr(found.value), "data-metric": metric.name, "data-over": names}
    std = "" if found.std is None else f"± {format_number(found.std, 2)}"
    return Cell(format_number(found.value), tip, std, attributes=data)


@dataclass(frozen=True)
class OptionRow:
    """One option over the runs. cells: (text, CSS class) for each run."""

    name: str
    differs: bool
    cells: Sequence[tuple[str, str | None]]


def option_rows(runs: Sequence[RunSummary]) -> list[OptionRow]:
    """A row for each option that any run has; a dash where a run does not have it."""
    differing = set(compare.differing(runs))
    rows = []
    for name in compare.option_names(runs):
        values = [run.options[name] for run in runs if name in run.options]
        common = max(values, key=values.count)
        cells = [
            (_option_text(run.options[name]), None if run.options[name] == common else "other")
            if name in run.options
            else ("–", "none")
            for run in runs
        ]
        rows.append(OptionRow(name, name in differing, cells))
    return rows


def _option_text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "on", False: "off"}[value]
    return str(value)
