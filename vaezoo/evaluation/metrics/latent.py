"""Which latents are used: by the spread of their means, and by their KL."""

from __future__ import annotations

import math
from itertools import zip_longest
from typing import Any

from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

from vaezoo.evaluation.metric import (
    BaseMetric,
    EvalBatch,
    EvalContext,
    Evidence,
    MetricResult,
    MetricState,
    MetricUnavailable,
)
from vaezoo.evaluation.sums import RunningMoments, Total

ACTIVE_VARIANCE = 0.01
"""A latent is active when its posterior mean varies more than this over the data."""
COLLAPSED_NATS = 0.01
"""A latent says nothing of an example whose KL in that latent is below this."""
COLLAPSED_SHARE = 0.99
"""A latent is collapsed when it says nothing of this share of the examples, or more."""


def latent_kls(posterior: Distribution, prior: Distribution) -> Tensor | None:
    """KL of each latent by itself, nats: [batch, latents]; their sum is the whole KL.

    None where the KL is no sum over latents: one of the two is not a product of independent ones.
    """
    if not (isinstance(posterior, Independent) and isinstance(prior, Independent)):
        return None
    if getattr(posterior, "kl_divergence", None) is not None:
        return None  # it tells its own, and as a whole
    try:
        kls = kl_divergence(posterior.base_dist, prior.base_dist)
    except NotImplementedError:
        return None
    return kls.flatten(1)


class LatentMoments(MetricState):
    """Mean and variance over the examples of what stands for their posteriors."""

    shared = True

    def __init__(self, setting: EvalContext) -> None:
        super().__init__(setting)
        self.latents = RunningMoments()

    def add(self, view: EvalBatch) -> None:
        self.latents.add(view.latents)


class LatentKls(MetricState):
    """The KL of each latent: its mean over examples, and for how many it is next to nothing."""

    shared = True

    def __init__(self, setting: EvalContext) -> None:
        super().__init__(setting)
        self.kls, self.silent = RunningMoments(), Total()

    def add(self, view: EvalBatch) -> None:
        kls = latent_kls(view.posterior, view.prior)
        if kls is None:
            raise MetricUnavailable("its KL is no sum over latents")
        self.kls.add(kls)
        self.silent.add((kls < COLLAPSED_NATS).sum(0))

    @property
    def collapsed(self) -> Tensor:
        """Whether each latent is collapsed: bool, [latents]."""
        assert self.silent.values is not None
        return self.silent.values >= COLLAPSED_SHARE * self.kls.count


class ActiveUnits(BaseMetric):
    collects = (LatentMoments,)

    def measure(self, evidence: Evidence) -> MetricResult:
        return MetricResult(int((evidence[LatentMoments].latents.variance > ACTIVE_VARIANCE).sum()))


class CollapsedUnits(BaseMetric):
    collects = (LatentKls,)

    def measure(self, evidence: Evidence) -> MetricResult:
        return MetricResult(int(evidence[LatentKls].collapsed.sum()))


def latent_report(spread: LatentMoments | None, kls: LatentKls | None) -> list[dict[str, Any]]:
    """A row for each latent, in order: what is known of its use; None where a number is missing.

    spread, kls: None where the model has no such numbers. Of categories there are KLs alone, one
    for each variable.
    """
    variance = [] if spread is None else _finite(spread.latents.variance)
    rate = [] if kls is None else _finite(kls.kls.mean)
    collapsed = [] if kls is None else kls.collapsed.tolist()
    return [
        {
            "latent": i,
            "rate": r,
            "mean_variance": v,
            "active": None if v is None else v > ACTIVE_VARIANCE,
            "collapsed": c,
        }
        for i, (r, v, c) in enumerate(zip_longest(rate, variance, collapsed))
    ]


def _finite(values: Tensor) -> list[float | None]:
    """None for what has diverged: there is no such number."""
    return [value if math.isfinite(value) else None for value in values.tolist()]
