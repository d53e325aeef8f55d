"""What runs have in common and where they differ: options, best numbers, curves in one chart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vaezoo.evaluation.seeds import alike
from vaezoo.report.facts import RunFacts

_MOST_POINTS = 300
"""Of a curve: more than its chart has pixels to show."""


def option_names(runs: Sequence[RunFacts]) -> list[str]:
    """Of all runs, those of a section together: model, loss, data, train."""
    names = dict.fromkeys(name for run in runs for name in run.options)
    sections = list(dict.fromkeys(name.partition(".")[0] for name in names))
    return sorted(names, key=lambda name: sections.index(name.partition(".")[0]))


def differing(runs: Sequence[RunFacts]) -> list[str]:
    """The options that are not the same in all runs."""
    missing = object()
    return [
        name
        for name in option_names(runs)
        if any(run.options.get(name, missing) != runs[0].options.get(name, missing) for run in runs)
    ]


def usual(runs: Sequence[RunFacts], name: str) -> Any:
    """What most of the runs that have this option have; the first of equals."""
    values = [run.options[name] for run in runs if name in run.options]
    return max(values, key=values.count)


def best(runs: Sequence[RunFacts], name: str, better: str) -> set[int]:
    """Which runs have the best number of a metric, among two or more that it compares with."""
    if better not in ("higher", "lower"):
        return set()
    groups: dict[str, list[tuple[float, int]]] = {}
    for i, run in enumerate(runs):
        number = run.numbers.get(name)
        if number is not None and number.value is not None and number.comparable:
            groups.setdefault(number.comparable, []).append((number.value, i))
    found: set[int] = set()
    for group in groups.values():
        if len(group) > 1:
            top = (max if better == "higher" else min)(value for value, _ in group)
            found |= {i for value, i in group if value == top}
    return found


def over_seed_groups(runs: Sequence[RunFacts]) -> list[list[int]]:
    """The runs of each configuration of which several seeds were trained."""
    # What could not be read is like nothing else.
    data = [run.group if run.config else run.name for run in runs]
    return [members for members in alike([run.config for run in runs], data) if len(members) > 1]


def points(run: RunFacts, kind: str, term: str) -> list[tuple[float, float]]:
    """A curve: (step, value), thinned; what is no number leaves a gap."""
    found = [
        (float(line["step"]), line["terms"][term])
        for line in run.history
        if line["kind"] == kind and line["terms"].get(term) is not None
    ]
    every = math.ceil(len(found) / _MOST_POINTS)
    return found if every <= 1 else [*found[::every], found[-1]]


def term_names(runs: Sequence[RunFacts]) -> list[str]:
    """The terms to draw: all of one run; of several, those that more than one has."""
    counts: dict[str, int] = {}
    for run in runs:
        for name in dict.fromkeys(name for line in run.history for name in line["terms"]):
            counts[name] = counts.get(name, 0) + 1
    least = 1 if len(runs) == 1 else 2
    first = ("elbo", "rate", "distortion", "loss")
    names = [name for name in first if counts.get(name, 0) >= least]
    return [*names, *(n for n in counts if n not in first and counts[n] >= least)]


def groups(runs: Sequence[RunFacts]) -> Mapping[str, list[int]]:
    """The numbers of the runs of each group, in order."""
    found: dict[str, list[int]] = {}
    for i, run in enumerate(runs):
        found.setdefault(run.group or run.name, []).append(i)
    return found
