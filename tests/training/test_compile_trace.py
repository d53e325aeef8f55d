"""torch.compile traces each loss as one graph, and other batch sizes do not compile it again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from vaezoo.losses.base import loss_of
from vaezoo.plugins.registry import registry
from vaezoo.runtime.device import precision_context
from vaezoo.testing.subjects import ModelWithLoss

OURS = [s.name for s in registry().specs("model") if registry().plugin(s).distribution == "vaezoo"]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    with precision_context("fp32", deterministic=True):
        yield
    torch._dynamo.reset()


def breaks(name: str) -> list[str]:
    """Why each phase of a model's step is more than one graph."""
    pair = ModelWithLoss(name)
    model, batch, found = pair.build(), pair.batch(), []
    for phase in loss_of(model).phases(model):
        traced = torch._dynamo.explain(phase.loss_fn)(model, batch, pair.context())
        found += [str(one.reason) for one in traced.break_reasons]
    return found


def test_a_step_is_one_graph() -> None:
    assert breaks("vanilla") == []


@pytest.mark.slow
@pytest.mark.parametrize("name", OURS)
def test_the_steps_of_all_models_are_one_graph(name: str) -> None:
    assert breaks(name) == []


def test_other_batch_sizes_are_compiled_once() -> None:
    pair = ModelWithLoss("vanilla")
    model, compiled = pair.build(), CompileCounter()
    loss = torch.compile(loss_of(model), backend=compiled)
    for size in (8, 8, 5):  # the second size gets a graph for all
        loss(model, pair.batch(size), pair.context())
    before = compiled.frame_count
    for size in (7, 4, 6):
        loss(model, pair.batch(size), pair.context())
    assert compiled.frame_count == before <= 2
