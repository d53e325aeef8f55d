"""Metrics of discrete latents: which codes of the codebook the model uses."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from vaezoo import MetricState
from vaezoo.evaluation.accumulators import RunningSum
from vaezoo.evaluation.metric import EvalBatch, EvalContext, MetricResult, MetricUnavailable


@runtime_checkable
class CodePosterior(Protocol):
    """A posterior with one certain code a position: int64 [batch, ...], below `num_codes`."""

    indices: Tensor
    num_codes: int


class CodeCounts(MetricState):
    """How often each code occurs, at all positions of all examples together."""

    mergeable = True

    def __init__(self, context: EvalContext) -> None:
        super().__init__(context)
        self.counts = RunningSum()

    def update(self, batch: EvalBatch) -> None:
        posterior: object = batch.posterior
        if not isinstance(posterior, CodePosterior):
            raise MetricUnavailable("its latents are no codes of one codebook")
        indices = posterior.indices.flatten()
        self.counts.update(torch.bincount(indices, minlength=posterior.num_codes))

    @property
    def frequencies(self) -> Tensor:
        counts = self.counts.sum
        assert counts is not None
        return counts.double() / counts.sum()

    def code_use(self) -> MetricResult:
        used = float((self.frequencies > 0).double().mean())
        return MetricResult(used, note=f"of {len(self.frequencies):,} codes")

    def code_perplexity(self) -> MetricResult:
        perplexity = float(torch.special.entr(self.frequencies).sum().exp())
        return MetricResult(perplexity, note=f"of {len(self.frequencies):,} codes")
