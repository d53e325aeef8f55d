"""Runs that differ in their seed alone are found, and taken together."""

from __future__ import annotations

import math
from typing import Any

import pytest

from vaezoo.evaluation.seeds import aggregate_seeds, group_by_config, group_name


def config(seed: int = 0, **loss: Any) -> dict[str, dict[str, Any]]:
    return {"model": {"name": "m", "seed": 7}, "loss": loss, "train": {"seed": seed, "lr": 0.1}}


def test_mean_and_spread() -> None:
    """1, 2, 4: deviations of -4/3, -1/3 and 5/3 from 7/3, and the variance is 42/9 / 2 = 7/3."""
    found = aggregate_seeds([1.0, 2.0, 4.0], [0.3, 0.4, 0.0])
    assert found.value == pytest.approx(7 / 3)
    assert found.std == pytest.approx(math.sqrt(7 / 3))
    assert found.uncertainty == pytest.approx(0.5 / math.sqrt(3))
    assert found.values == [1.0, 2.0, 4.0]


def test_runs_without_the_number() -> None:
    found = aggregate_seeds([1.0, None, 3.0], [0.1, None, None])
    assert (found.value, found.values) == (2.0, [1.0, None, 3.0])
    assert (
        found.uncertainty is None
    )  # one of those that have the number does not say how sure it is
    alone = aggregate_seeds([1.0, None], [0.1, None])
    assert (alone.value, alone.std, alone.uncertainty) == (1.0, None, 0.1)
    nothing = aggregate_seeds([None, None], [None, None])
    assert (nothing.value, nothing.std, nothing.uncertainty) == (None, None, None)


def test_the_seed_of_training_and_nothing_else_may_differ() -> None:
    configs = [config(0, beta=1), config(0, beta=4), config(1, beta=1), config(2, beta=4)]
    assert group_by_config(configs, ["d"] * 4) == [[0, 2], [1, 3]]
    assert group_by_config(configs, ["d", "d", "other", "d"]) == [[0], [1, 3], [2]]
    model = config(0, beta=1)
    model["model"]["seed"] = 8  # an option of the model that has the same name
    assert group_by_config([configs[0], model], ["d", "d"]) == [[0], [1]]
    rate = config(1, beta=1)
    rate["train"]["lr"] = 0.2
    assert group_by_config([configs[0], rate], ["d", "d"]) == [[0], [1]]


def test_what_they_are_called() -> None:
    assert group_name(["a"]) == "a"
    assert group_name(["a", "b", "c"]) == "a +2"
