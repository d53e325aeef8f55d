"""The tables of the page: numbers, options, and what the numbers mean."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from vaezoo.evaluation.seeds import called, over_seeds
from vaezoo.plugins.registry import registry
from vaezoo.plugins.specs import MetricSpec
from vaezoo.report import compare, svg
from vaezoo.report.facts import Number, RunFacts
from vaezoo.report.html import Markup, join, tag
from vaezoo.report.spelling import spelled

_TRAINING = {
    "images_per_second": ("images/s", "Training examples a second, validation left out.", ""),
    "wall_seconds": ("seconds", "How long training took, validation and checkpoints included.", ""),
    "steps": ("steps", "Training steps taken.", ""),
    "parameters": ("parameters", "How many numbers were trained.", ""),
}


_STARRED = (
    " ★ is the best among the runs that it compares with: same data, same kind of likelihood."
)


class _Metric:
    """What the page says of a column: its heading, what it means, which direction is better."""

    def __init__(self, name: str) -> None:
        self.name, self.direction = name, "neither"
        self.heading = spelled(name)
        self.unit, self.meaning = "", "no plugin here knows it"
        if name in _TRAINING:
            self.heading, self.meaning, self.unit = _TRAINING[name]
            return
        spec = next((s for s in registry().specs("metric") if s.name == name), None)
        if isinstance(spec, MetricSpec):
            self.direction, self.unit = spec.direction, spec.unit
            self.meaning = f"{spec.summary}: {spec.formula}. {spec.paper}".rstrip(". ") + "."

    @property
    def arrow(self) -> str:
        return {"higher": " ↑", "lower": " ↓"}.get(self.direction, "")

    @property
    def explained(self) -> str:
        direction = {"higher": " Higher is better.", "lower": " Lower is better."}
        unit = f" In {self.unit}." if self.unit else ""
        return f"{self.meaning}{unit}{direction.get(self.direction, '')}"


def _columns(runs: Sequence[RunFacts]) -> list[_Metric]:
    """Of every number that at least one run has."""
    names = dict.fromkeys(name for run in runs for name in run.numbers)
    has = [n for n in names if any(r.numbers[n].value is not None for r in runs if n in r.numbers)]
    last = [name for name in has if name in _TRAINING]
    return [_Metric(name) for name in [*(n for n in has if n not in _TRAINING), *last]]


def numbers(runs: Sequence[RunFacts]) -> Markup | None:
    metrics = _columns(runs)
    if not metrics:
        return None
    winners = {metric.name: compare.best(runs, metric.name, metric.direction) for metric in metrics}
    rows = []
    for i, run in enumerate(runs):
        cells = [_cell(run, i, metric, i in winners[metric.name]) for metric in metrics]
        name = tag("th", tag("i", class_=f"swatch {svg.color(i)}"), run.name, scope="row")
        rows.append(tag("tr", name, cells, data_run=i))
    note = tag(
        "p",
        "On held-out data. Choose a heading to sort by it, point at it for what it means, and at a "
        "dash for why there is no number." + (_STARRED if any(winners.values()) else ""),
        class_="note",
    )
    return join(note, _sortable("Held-out numbers of each run", "run", metrics, rows), _seeds(runs))


def _sortable(caption: str, first: str, metrics: Sequence[_Metric], rows: list[Markup]) -> Markup:
    """A table with a column for each metric, which can be sorted by any."""
    headings = [
        tag(
            "th",
            tag(
                "button",
                metric.heading,
                metric.arrow,
                data_sort=i + 1,
                data_tip=metric.explained,
                aria_describedby=f"about-{metric.name}",
            ),
            scope="col",
            aria_sort="none",
        )
        for i, metric in enumerate(metrics)
    ]
    name = tag("th", tag("button", first, data_sort=0), scope="col", aria_sort="none")
    table = tag(
        "table",
        tag("caption", caption, class_="hidden"),
        tag("thead", tag("tr", name, headings)),
        tag("tbody", rows),
        class_="numbers",
    )
    return tag("div", table, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _dash(why: str) -> Markup:
    why = why or "not measured"
    dash = tag("span", "–", data_tip=why, tabindex="0", aria_label=f"none: {why}")
    return tag("td", dash, data_value="", class_="none")


def _cell(run: RunFacts, i: int, metric: _Metric, winner: bool) -> Markup:
    number = run.numbers.get(metric.name)
    if number is None or number.value is None:
        return _dash(number.note if number else "")
    spread = f"± {svg.show(number.spread, 2)}" if number.spread is not None else None
    told = " ".join(filter(None, (spread, number.note)))
    return tag(
        "td",
        svg.show(number.value),
        tag("small", f" {spread}") if spread else None,
        tag("span", " ★", class_="star", aria_label="best") if winner else None,
        data_value=repr(number.value),
        data_metric=metric.name,
        data_of=run.name,
        data_tip=told or None,
    )


def _seeds(runs: Sequence[RunFacts]) -> Markup | None:
    """A row for each configuration of which several seeds were trained."""
    groups = compare.over_seed_groups(runs)
    metrics = [metric for metric in _columns(runs) if metric.name not in _TRAINING]
    if not groups or not metrics:
        return None
    rows = []
    for members in groups:
        inside = [runs[i] for i in members]
        marks = [tag("i", class_=f"swatch {svg.color(i)}") for i in members]
        name = tag("th", marks, called([run.name for run in inside]), scope="row")
        rows.append(tag("tr", name, [_over(inside, metric) for metric in metrics]))
    note = (
        "Runs that differ in their seed alone, together: the mean over them ± their standard "
        "deviation, which is how much another training may differ. Point at a number for those of "
        "the runs."
    )
    table = _sortable("Numbers over seeds", "configuration", metrics, rows)
    return join(tag("h3", "Over seeds"), tag("p", note, class_="note"), table)


def _over(runs: Sequence[RunFacts], metric: _Metric) -> Markup:
    """One metric of one configuration."""
    there = [run.numbers.get(metric.name) or Number(None) for run in runs]
    found = over_seeds([n.value for n in there], [n.spread for n in there])
    if found.value is None:
        return _dash(next((n.note for n in there if n.note), ""))
    each = ", ".join("–" if value is None else svg.show(value) for value in found.values)
    told = f"of {len(runs)} runs: {each}"
    if found.within is not None:
        told += f"; each by itself ± {svg.show(found.within, 2)}"
    return tag(
        "td",
        svg.show(found.value),
        None if found.spread is None else tag("small", f" ± {svg.show(found.spread, 2)}"),
        data_value=repr(found.value),
        data_metric=metric.name,
        data_over=json.dumps([run.name for run in runs]),
        data_tip=told,
    )


def options(runs: Sequence[RunFacts]) -> Markup | None:
    names = compare.option_names(runs)
    if not names:
        return None
    different = set(compare.differing(runs))
    rows = []
    for name in names:
        usual = compare.usual(runs, name)
        cells = []
        for i, run in enumerate(runs):
            value = run.options.get(name)
            marks = "none" if name not in run.options else "other" if value != usual else None
            cells.append(tag("td", _option(run.options, name), data_run=i, class_=marks))
        kind = "differs" if name in different else "same"
        rows.append(tag("tr", tag("th", name, scope="row"), cells, class_=kind))
    headings = [
        tag("th", tag("i", class_=f"swatch {svg.color(i)}"), run.name, scope="col", data_run=i)
        for i, run in enumerate(runs)
    ]
    table = tag(
        "table",
        tag("caption", "Options of each run", class_="hidden"),
        tag("thead", tag("tr", tag("th", "option", scope="col"), headings)),
        tag("tbody", rows),
        class_="options",
    )
    switch = tag(
        "label",
        tag("input", type="checkbox", id="only-differing", checked=bool(different)),
        f" only the {len(different)} that differ, of {len(names)}",
        class_="switch",
    )
    scroll = tag("div", table, class_="scroll", tabindex="0", role="region", aria_label="Options")
    note = "A dash: the run has no such option, its model, loss or data being another."
    missing = any(name not in run.options for run in runs for name in names)
    return join(
        tag("p", note, class_="note") if missing else None,
        switch if len(runs) > 1 else None,
        scroll,
    )


def _option(options: dict[str, Any], name: str) -> str:
    if name not in options:
        return "–"
    value = options[name]
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "on", False: "off"}[value]
    return str(value)


def glossary(runs: Sequence[RunFacts]) -> Markup | None:
    metrics = _columns(runs)
    entries = [
        join(tag("dt", m.heading, m.arrow), tag("dd", m.explained, id=f"about-{m.name}"))
        for m in metrics
    ]
    return tag("dl", entries, class_="glossary") if entries else None
