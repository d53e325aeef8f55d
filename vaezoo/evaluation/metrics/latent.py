"""Metrics of the latents: which of them, or which codes, the model uses."""

from __future__ import annotations

import math
from itertools import zip_longest
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

from vaezoo.evaluation.accumulators import RunningMoments, RunningSum
from vaezoo.evaluation.metric import (
    EvalBatch,
    EvalContext,
    ExampleMoments,
    MetricResult,
    MetricState,
    MetricUnavailable,
)

ACTIVE_VARIANCE = 0.01
"""A latent is active if the variance of its posterior mean over the data is larger."""
COLLAPSED_NATS = 0.01
"""An example does not use a latent if its KL in that latent is smaller."""
COLLAPSED_FRACTION = 0.99
"""A latent is collapsed if this fraction of the examples, or more, do not use it."""


def latent_kls(posterior: Distribution, prior: Distribution) -> Tensor | None:
    """KL of each latent by itself, nats: [batch, latents]; their sum is the KL of all.

    None where the KL is no sum over latents: posterior or prior is not a product of independent
    distributions.
    """
    if not (isinstance(posterior, Independent) and isinstance(prior, Independent)):
        return None
    if getattr(posterior, "kl_divergence", None) is not None:
        return None  # it has a KL of its own, for all latents together
    try:
        kls = kl_divergence(posterior.base_dist, prior.base_dist)
    except NotImplementedError:
        return None
    return kls.flatten(1)


class LatentMoments(ExampleMoments):
    """Mean and variance over the examples of the posterior's mode."""

    def measure(self, batch: EvalBatch) -> Tensor:
        return batch.latents

    def active_units(self) -> MetricResult:
        return MetricResult(int((self.values.variance > ACTIVE_VARIANCE).sum()))


class LatentKls(MetricState):
    """The KL of each latent: its mean over examples, and how many examples do not use it."""

    mergeable = True

    def __init__(self, context: EvalContext) -> None:
        super().__init__(context)
        self.kls, self.unused = RunningMoments(), RunningSum()

    def update(self, batch: EvalBatch) -> None:
        kls = latent_kls(batch.posterior, batch.prior)
        if kls is None:
            raise MetricUnavailable("its KL is no sum over latents")
        self.kls.update(kls)
        self.unused.update((kls < COLLAPSED_NATS).sum(0))

    @property
    def collapsed(self) -> Tensor:
        """Whether each latent is collapsed: bool, [latents]."""
        assert self.unused.sum is not None
        return self.unused.sum >= COLLAPSED_FRACTION * self.kls.count

    def collapsed_units(self) -> MetricResult:
        return MetricResult(int(self.collapsed.sum()))


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


def latent_report(moments: LatentMoments | None, kls: LatentKls | None) -> list[dict[str, Any]]:
    """A row for each latent, in order; None where a number is missing or not finite.

    moments, kls: None if the model has no such numbers. Categorical latents have a KL only, one for
    each variable.
    """
    variance = [] if moments is None else moments.values.variance.tolist()
    rate = [] if kls is None else kls.kls.mean.tolist()
    collapsed = [] if kls is None else kls.collapsed.tolist()
    rows = []
    for i, (r, v, c) in enumerate(zip_longest(rate, variance, collapsed)):
        r, v = (None if x is None or not math.isfinite(x) else x for x in (r, v))
        active = None if v is None else v > ACTIVE_VARIANCE
        rows.append({"latent": i, "rate": r, "mean_variance": v, "active": active, "collapsed": c})
    return rows
