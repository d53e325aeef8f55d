"""Runs side by side: names and values, differing options, best values."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from .summary import RunSummary

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
