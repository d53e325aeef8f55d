"""The aggregate posterior q(z) = mean over examples of q(z|x), and what the rate is made of."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from vaezoo.evaluation.metric import (
    BaseMetric,
    EvalBatch,
    EvalContext,
    Evidence,
    MetricResult,
    MetricState,
    MetricUnavailable,
)
from vaezoo.evaluation.sums import Mean

_ERROR = "standard error over draws"
LARGEST_POPULATION = 10_000
"""How many examples' posteriors make up q(z)."""
LARGEST_DRAWS = 1000
"""At how many draws, spread evenly over these examples, the densities are compared."""
_PAIRS = 2**21
"""How many numbers a chunk of (draw, posterior) pairs may hold."""
_NEAR = 0.5
"""An estimate that is this near to its ceiling, in nats, tells nothing but that it is large."""


class AggregatePosterior(MetricState):
    """The first N posteriors, and a draw of some of them."""

    def __init__(self, setting: EvalContext) -> None:
        super().__init__(setting)
        self.population = min(setting.examples, LARGEST_POPULATION)
        draws = min(self.population, LARGEST_DRAWS)
        self.drawn_from = {int(i) for i in torch.linspace(0, self.population - 1, draws)}
        self.parts: list[tuple[Distribution, int]] = []
        self.z: list[Tensor] = []
        self.own: list[Tensor] = []
        self.log_prior: list[Tensor] = []

    def add(self, view: EvalBatch) -> None:
        room = self.population - sum(count for _, count in self.parts)
        if room <= 0:
            return
        if view.model.conditional:
            raise MetricUnavailable(
                "its posterior and prior go by the label, and this estimate does not"
            )
        posterior = view.posterior
        if not isinstance(posterior, Independent):
            raise MetricUnavailable("its posterior is no product of independent latents")
        rows = [i for i, at in enumerate(view.index.tolist()) if at in self.drawn_from]
        self.parts.append((posterior, min(room, len(view))))
        if rows:
            z = view.z[rows]
            self.z.append(z)
            self.own.append(posterior.log_prob(view.z)[rows])
            self.log_prior.append(view.prior.log_prob(z))

    @functools.cached_property
    def densities(self) -> tuple[Tensor, Tensor, Tensor]:
        """log q(z|x), log q(z) and log p(z) at the draws, nats: [draws] each, in double."""
        z = torch.cat(self.z)
        at_once = max(1, _PAIRS // max(1, z[0].numel() * self.setting.batches.batch_size))
        parts = []
        for done in range(0, len(z), at_once):
            chunk = z[done : done + at_once].unsqueeze(1)
            each = [p.log_prob(chunk)[:, :count].double() for p, count in self.parts]
            parts.append(torch.cat(each, 1).logsumexp(1) - math.log(self.population))
            self.setting.on_progress("aggregate posterior", min(done + at_once, len(z)), len(z))
        return torch.cat(self.own).double(), torch.cat(parts), torch.cat(self.log_prior).double()

    def told(self, values: Tensor) -> MetricResult:
        """Their mean, with a word of caution where the estimate has reached its ceiling."""
        mean = Mean()
        mean.add(values)
        own, aggregate, _ = self.densities
        ceiling = math.log(self.population)
        caution = ""
        if float((own - aggregate).mean()) > ceiling - _NEAR:
            caution = (
                f"I(x; z) is at the ceiling of its estimate, log {self.population:,} = "
                f"{ceiling:.2f}: it may be much larger, and the marginal KL smaller"
            )
        return MetricResult(
            mean.mean, mean.standard_error, _ERROR, note=caution, examples=self.population
        )


class MutualInformation(BaseMetric):
    collects = (AggregatePosterior,)

    def measure(self, evidence: Evidence) -> MetricResult:
        aggregate = evidence[AggregatePosterior]
        own, of_all, _ = aggregate.densities
        return aggregate.told(own - of_all)


class MarginalKl(BaseMetric):
    collects = (AggregatePosterior,)

    def measure(self, evidence: Evidence) -> MetricResult:
        aggregate = evidence[AggregatePosterior]
        _, of_all, prior = aggregate.densities
        return aggregate.told(of_all - prior)
