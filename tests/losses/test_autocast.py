"""What is delicate in a step runs in float32 under bfloat16 autocast, for all models and losses.

Logarithms and exponentials of densities, log-sum-exp, softmax, distances to codes, and the
log-determinants of flows. bfloat16 has three digits, and a difference of nats needs more.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vaezoo.losses.base import loss_of
from vaezoo.plugins.registry import registry
from vaezoo.plugins.specs import Kind
from vaezoo.runtime.device import autocast, precision_context
from vaezoo.testing.contract import make_subject
from vaezoo.testing.subjects import CPU, ModelWithLoss

DELICATE = (
    "exp log log1p expm1 log2 logsumexp logaddexp logcumsumexp log_softmax _log_softmax softplus "
    "lgamma digamma log_sigmoid_forward erf erfinv atanh acos cdist _cdist_forward "
    "_euclidean_dist linalg_slogdet _linalg_slogdet linalg_cholesky_ex cumsum cumprod prod"
)
"""Names of operations, with a space between them."""


class HalfPrecision(TorchDispatchMode):
    """Keeps the names of delicate operations that get values in half precision."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        name = func.overloadpacket.__name__
        if name in DELICATE.split() and any(t.dtype == torch.bfloat16 for t in tensors):
            self.found.add(name)
        return func(*args, **(kwargs or {}))


def in_half_precision(pair: ModelWithLoss) -> set[str]:
    model, batch = pair.build(), pair.batch()
    with precision_context("fp32", True), autocast("bf16", CPU), HalfPrecision() as seen:
        for phase in loss_of(model).phases(model):
            phase.loss_fn(model, batch, pair.context())
        with torch.no_grad():
            loss_of(model.eval())(model, batch, pair.context())
    return seen.found


OURS = [
    pytest.param(kind, spec.name, id=f"{kind} {spec.name}")
    for kind in ("model", "loss", "bottleneck", "likelihood")
    for spec in registry().specs(kind)
    if registry().plugin(spec).distribution == "vaezoo"
]


@pytest.mark.parametrize(("kind", "name"), OURS)
def test_delicate_operations_are_in_float32(kind: Kind, name: str) -> None:
    pair = make_subject(kind, registry().get(kind, name), {})
    assert isinstance(pair, ModelWithLoss)
    assert in_half_precision(pair) == set()


def test_one_in_half_precision_is_seen() -> None:
    layer = nn.Linear(2, 2)
    with autocast("bf16", CPU), HalfPrecision() as seen:
        layer(torch.ones(1, 2)).exp()
        layer(torch.ones(1, 2)).float().exp()
        torch.logsumexp(layer(torch.ones(1, 2)), 1)
    assert "exp" in seen.found
