"""Runs side by side: names and values, differing options, best values, groups by seed."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vaezoo.report.summary import RunSummary

_UPPER = ("elbo", "mse", "psnr", "ssim", "ms", "fid", "kid", "mig", "sap", "dci", "kl")
_DISPLAY = {word: word.upper() for word in _UPPER} | {
    "r2": "R²",
    "factor_vae_score": "FactorVAE score",
}


def display_name(name: str) -> str:
    """A metric's name for people: `bits_per_dim` is bits per dim, `elbo` is ELBO."""
    if name in _DISPLAY:
        return _DISPLAY[name]
    return " ".join(_DISPLAY.get(word, word) for word in name.split("_"))


def format_number(value: float, digits: int = 5) -> str:
    """A number with so many significant digits, thousands separated, and a true minus sign."""
    text = f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.{digits}g}"
    return text.replace("-", "−")


_MAX_POINTS = 300
"""Of a curve: its chart has fewer pixels."""


def option_names(runs: Sequence[RunSummary]) -> list[str]:
    """The options of all runs, grouped by section: model, loss, data, train."""
    names = dict.fromkeys(name for run in runs for name in run.options)
    sections = list(dict.fromkeys(name.partition(".")[0] for name in names))
    return sorted(names, key=lambda name: sections.index(name.partition(".")[0]))


def differing(runs: Sequence[RunSummary]) -> list[str]:
    """The options that are not the same in all runs."""
    missing = object()
    return [
        name
        for name in option_names(runs)
        if any(run.options.get(name, missing) != runs[0].options.get(name, missing) for run in runs)
    ]


def best(runs: Sequence[RunSummary], name: str, direction: str) -> set[int]:
    """The indices of the runs with the best value, among two or more comparable ones."""
    if direction not in ("higher", "lower"):
        return set()
    groups: dict[str, list[tuple[float, int]]] = {}
    for i, run in enumerate(runs):
        number = run.numbers.get(name)
        if number is not None and number.value is not None and number.comparable:
            groups.setdefault(number.comparable, []).append((number.value, i))
    found: set[int] = set()
    for group in groups.values():
        if len(group) > 1:
            top = (max if direction == "higher" else min)(value for value, _ in group)
            found |= {i for value, i in group if value == top}
    return found


def points(run: RunSummary, kind: str, term: str) -> list[tuple[float, float]]:
    """The points (step, value) of a curve, thinned; missing values are left out."""
    found = [
        (float(line["step"]), line["terms"][term])
        for line in run.history
        if line["kind"] == kind and line["terms"].get(term) is not None
    ]
    every = math.ceil(len(found) / _MAX_POINTS)
    return found if every <= 1 else [*found[::every], found[-1]]


def term_names(runs: Sequence[RunSummary]) -> list[str]:
    """The terms to draw: all of a single run; of several runs, those that two or more have."""
    of_each = [dict.fromkeys(n for line in run.history for n in line["terms"]) for run in runs]
    counts = Counter(name for names in of_each for name in names)
    names = [name for name, count in counts.items() if count > 1 or len(runs) == 1]
    first = ("elbo", "rate", "distortion", "loss")
    return sorted(names, key=lambda name: first.index(name) if name in first else len(first))


_SEED = ("train", "seed")


@dataclass(frozen=True)
class SeedAggregate:
    """One number of runs that differ only in their seed.

    value: the mean of those that have the number, None where none has it. std: their standard
    deviation (n − 1), None of a single one: how much the number of another training may differ.
    uncertainty: the root mean square of the runs' own uncertainties, None unless all have one.
    values: of each run in order.
    """

    value: float | None
    std: float | None
    uncertainty: float | None
    values: list[float | None]


def aggregate_seeds(
    values: Sequence[float | None], uncertainties: Sequence[float | None]
) -> SeedAggregate:
    """Aggregate the values and uncertainties of one metric over runs."""
    found = [(v, s) for v, s in zip(values, uncertainties, strict=True) if v is not None]
    numbers = [value for value, _ in found]
    own = [uncertainty for _, uncertainty in found if uncertainty is not None]
    return SeedAggregate(
        statistics.fmean(numbers) if numbers else None,
        statistics.stdev(numbers) if len(numbers) > 1 else None,
        statistics.fmean(s * s for s in own) ** 0.5 if own and len(own) == len(found) else None,
        [*values],
    )


def group_by_config(
    configs: Sequence[Mapping[str, Mapping[str, Any]]], data: Sequence[object]
) -> list[list[int]]:
    """Group runs that differ only in their seed: their positions, a list for each configuration.

    configs: resolved, by section and option. data: identifies the data that each was trained on.
    """
    without_seed = [
        {s: {n: v for n, v in options.items() if (s, n) != _SEED} for s, options in config.items()}
        for config in configs
    ]
    keys = list(zip(data, without_seed, strict=True))
    groups = [[i for i, other in enumerate(keys) if other == key] for key in keys]
    return [group for i, group in enumerate(groups) if group[0] == i]


def group_name(names: Sequence[str]) -> str:
    """A name for a group of runs: that of the first, and how many more there are."""
    return names[0] if len(names) == 1 else f"{names[0]} +{len(names) - 1}"
