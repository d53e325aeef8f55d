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
    """A posterior with one certain code a position: int64 [batch, ...], below `num_codes`.

    If it has `codebooks` above 1, its indices are [batch, codebooks, ...]. If it has `sections`,
    they are [batch, positions], and so many positions after one another have a codebook each.
    """

    indices: Tensor
    num_codes: int


class CodeCounts(MetricState):
    """How often each code of each codebook occurs, at all positions of all examples together."""

    mergeable = True

    def __init__(self, context: EvalContext) -> None:
        super().__init__(context)
        self.counts = RunningSum()

    def update(self, batch: EvalBatch) -> None:
        posterior: object = batch.posterior
        if not isinstance(posterior, CodePosterior):
            raise MetricUnavailable("its latents are no codes of one codebook")
        rows: tuple[Tensor, ...] = (posterior.indices,)
        if sections := getattr(posterior, "sections", ()):
            rows = posterior.indices.split(sections, 1)
        elif getattr(posterior, "codebooks", 1) > 1:
            rows = posterior.indices.unbind(1)
        counts = [torch.bincount(row.flatten(), minlength=posterior.num_codes) for row in rows]
        self.counts.update(torch.stack(counts))

    @property
    def frequencies(self) -> Tensor:
        """The frequencies of the codes, each row of them adding up to 1: [codebooks, num_codes]."""
        counts = self.counts.sum
        assert counts is not None
        return counts.double() / counts.sum(1, keepdim=True)

    def code_use(self) -> MetricResult:
        return self._mean((self.frequencies > 0).double().mean(1), ".3f")

    def code_perplexity(self) -> MetricResult:
        return self._mean(torch.special.entr(self.frequencies).sum(1).exp(), ",.1f")

    def _mean(self, values: Tensor, form: str) -> MetricResult:
        """The mean over codebooks, [codebooks], with each of them in the note."""
        codebooks, codes = self.frequencies.shape
        note = f"of {codes:,} codes"
        if codebooks > 1:
            each = ", ".join(format(value, form) for value in values.tolist())
            note += f"; mean of {codebooks} codebooks: {each}"
        return MetricResult(float(values.mean()), note=note)
