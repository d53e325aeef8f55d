"""How many of its codes a discrete model uses."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from vaezoo.evaluation.metric import (
    BaseMetric,
    EvalBatch,
    EvalContext,
    Evidence,
    MetricResult,
    MetricState,
    MetricUnavailable,
)
from vaezoo.evaluation.sums import Total


@runtime_checkable
class OfCodes(Protocol):
    """A posterior that is certain of its codes: indices, int64 [batch, ...], below `num_codes`."""

    indices: Tensor
    num_codes: int


class CodeCounts(MetricState):
    """How often each code occurs, at all positions of all examples together."""

    shared = True

    def __init__(self, setting: EvalContext) -> None:
        super().__init__(setting)
        self.counts = Total()

    def add(self, view: EvalBatch) -> None:
        posterior: object = view.posterior
        if not isinstance(posterior, OfCodes):
            raise MetricUnavailable("its latents are no codes of one codebook")
        indices = posterior.indices.flatten()
        self.counts.add(torch.bincount(indices, minlength=posterior.num_codes))

    @property
    def fractions(self) -> Tensor:
        counts = self.counts.values
        assert counts is not None
        return counts.double() / counts.sum()


class CodeUse(BaseMetric):
    collects = (CodeCounts,)

    def measure(self, evidence: Evidence) -> MetricResult:
        shares = evidence[CodeCounts].fractions
        return MetricResult(float((shares > 0).double().mean()), note=f"of {len(shares):,} codes")


class CodePerplexity(BaseMetric):
    collects = (CodeCounts,)

    def measure(self, evidence: Evidence) -> MetricResult:
        shares = evidence[CodeCounts].fractions
        perplexity = float(torch.special.entr(shares).sum().exp())
        return MetricResult(perplexity, note=f"of {len(shares):,} codes")
