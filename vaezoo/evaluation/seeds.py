"""Runs that differ only in their seed: groups of them, and means over a group."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
