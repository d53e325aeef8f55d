"""Runs that differ only in their seed: grouping, mean and standard deviation."""

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
    groups: list[tuple[Any, list[int]]] = []
    for i, (config, fingerprint) in enumerate(zip(configs, data, strict=True)):
        without_seed = {
            section: {name: value for name, value in options.items() if (section, name) != _SEED}
            for section, options in config.items()
        }
        key = (fingerprint, without_seed)
        members = next((members for known, members in groups if known == key), None)
        if members is None:
            groups.append((key, members := []))
        members.append(i)
    return [members for _, members in groups]


def group_name(names: Sequence[str]) -> str:
    """A name for a group of runs: that of the first, and how many more there are."""
    return names[0] if len(names) == 1 else f"{names[0]} +{len(names) - 1}"
