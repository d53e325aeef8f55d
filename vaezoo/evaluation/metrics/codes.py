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
    """A posterior that is sure of its codes: int64 [batch, ...], of `code_count` that there are."""

    codes: Tensor
    code_count: int


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
        codes = posterior.codes.flatten()
        self.counts.add(torch.bincount(codes, minlength=posterior.code_count))

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
