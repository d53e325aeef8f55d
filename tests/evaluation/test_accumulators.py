"""Sums and moments over examples: the same in any parts, and merged with others."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vaezoo.evaluation.accumulators import Accumulator, RunningMoments, RunningSum


@pytest.mark.parametrize("missing", ["state", "merge"])
def test_an_accumulator_needs_a_state_and_a_merge(missing: str) -> None:
    """Else it would lose the examples of other processes."""
    members = {"state": property(lambda self: None), "merge": lambda self, state: None}
    del members[missing]
    part = type("Part", (Accumulator,), members)
    with pytest.raises(TypeError, match=missing):
        part()


def values(count: int, offset: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return offset + torch.randn(count, 3, generator=generator, dtype=torch.float64)


def moments(*parts: torch.Tensor) -> RunningMoments:
    running = RunningMoments()
    for part in parts:
        running.update(part)
    return running


def check(running: RunningMoments, of: torch.Tensor) -> None:
    assert running.count == len(of)
    assert torch.allclose(running.mean, of.mean(0), rtol=1e-12, atol=1e-12)
    assert torch.allclose(running.variance, of.var(0, correction=0), rtol=1e-7, atol=1e-12)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.sampled_from([0.0, 1e6, -1e6]))
def test_moments_do_not_depend_on_the_parts(counts: list[int], offset: float) -> None:
    whole = values(sum(counts), offset)
    check(moments(*whole.split(counts)), whole)


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize(("first", "second"), [(7, 5), (1, 9), (9, 1)])
def test_merged_moments_are_those_of_all_examples(first: int, second: int, offset: float) -> None:
    """Also of processes whose first batches lie far apart."""
    a, b = values(first, offset), values(second, offset + 50.0)
    running, state = moments(*a.split(3)), moments(*b.split(2)).state
    assert state is not None
    running.merge(state)
    check(running, torch.cat([a, b]))
    running.update(values(4))
    check(running, torch.cat([a, b, values(4)]))


def test_moments_merge_into_those_of_a_process_without_examples() -> None:
    running, state = RunningMoments(), moments(values(5), values(3)).state
    assert running.state is None
    assert state is not None
    running.merge(state)
    check(running, torch.cat([values(5), values(3)]))


def test_the_standard_error_is_that_of_the_mean_of_independent_examples() -> None:
    numbers = values(12)[:, 0]
    assert moments(numbers).standard_error == pytest.approx(numbers.std().item() / math.sqrt(12))
    assert moments(numbers[:2]).standard_error == pytest.approx(numbers[:2].std().item() / 2**0.5)
    assert moments(numbers[:1]).standard_error is None


def test_single_precision_is_summed_in_double() -> None:
    tenth = torch.full((1000,), 0.1)
    assert moments(*tenth.split(1)).mean.item() == pytest.approx(tenth[0].item(), rel=1e-15)


def test_sums_of_parts_and_of_processes() -> None:
    running, other = RunningSum(), RunningSum()
    assert running.state is None
    running.update(torch.tensor([1.0, 2.0]))
    running.update(torch.tensor([3.0, 4.0]))
    other.merge(running.sum)  # type: ignore[arg-type]
    other.update(torch.tensor([10.0, 0.0]))
    running.merge(other.sum)  # type: ignore[arg-type]
    assert running.state is not None
    assert running.state.tolist() == [18.0, 12.0]
