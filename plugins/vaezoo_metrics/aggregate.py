"""Metrics of the aggregate posterior q(z), the mean over examples of q(z|x)."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from vaezoo import MetricState
from vaezoo.evaluation.accumulators import RunningMoments
from vaezoo.evaluation.metric import (
    EvalBatch,
    EvalContext,
    MetricResult,
    MetricUnavailable,
)

MAX_POPULATION = 10_000
"""How many examples' posteriors make up q(z)."""
MAX_SAMPLES = 1000
"""How many samples, spread evenly over these examples, the densities are compared at."""
_PAIRS = 2**21
"""How many numbers a chunk of (sample, posterior) pairs may hold."""
_NEAR = 0.5
"""An estimate this near to its upper limit, in nats, only says that the value is large."""


class AggregatePosterior(MetricState):
    """The first N posteriors, and a sample of some of them."""

    def __init__(self, context: EvalContext) -> None:
        super().__init__(context)
        self.population = min(context.num_examples, MAX_POPULATION)
        samples = min(self.population, MAX_SAMPLES)
        self.sampled = {int(i) for i in torch.linspace(0, self.population - 1, samples)}
        self.parts: list[tuple[Distribution, int]] = []
        self.z: list[Tensor] = []
        self.own: list[Tensor] = []
        self.log_prior: list[Tensor] = []

    def update(self, batch: EvalBatch) -> None:
        missing = self.population - sum(count for _, count in self.parts)
        if missing <= 0:
            return
        if batch.model.conditional:
            raise MetricUnavailable("this estimate needs a posterior and a prior without labels")
        posterior = batch.posterior
        if not isinstance(posterior, Independent):
            raise MetricUnavailable("its posterior is no product of independent latents")
        rows = [i for i, at in enumerate(batch.index.tolist()) if at in self.sampled]
        self.parts.append((posterior, min(missing, len(batch))))
        if rows:
            z = batch.z[rows]
            self.z.append(z)
            self.own.append(posterior.log_prob(batch.z)[rows])
            self.log_prior.append(batch.prior.log_prob(z))

    @functools.cached_property
    def densities(self) -> tuple[Tensor, Tensor, Tensor]:
        """log q(z|x), log q(z) and log p(z) at the samples, nats: [samples] each, in double."""
        z = torch.cat(self.z)
        chunk_size = max(1, _PAIRS // max(1, z[0].numel() * self.context.batches.batch_size))
        parts = []
        for start in range(0, len(z), chunk_size):
            chunk = z[start : start + chunk_size].unsqueeze(1)
            each = [p.log_prob(chunk)[:, :count].double() for p, count in self.parts]
            parts.append(torch.cat(each, 1).logsumexp(1) - math.log(self.population))
            self.context.on_progress("aggregate posterior", start + len(chunk), len(z))
        return torch.cat(self.own).double(), torch.cat(parts), torch.cat(self.log_prior).double()

    def mutual_information(self) -> MetricResult:
        own, aggregate, _ = self.densities
        return self._mean(own - aggregate)

    def marginal_kl(self) -> MetricResult:
        _, aggregate, prior = self.densities
        return self._mean(aggregate - prior)

    def _mean(self, values: Tensor) -> MetricResult:
        """The mean, with a note if the estimate of the mutual information is near its limit."""
        moments = RunningMoments()
        moments.update(values)
        own, aggregate, _ = self.densities
        limit = math.log(self.population)
        caution = (
            f"I(x; z) is near the upper limit of its estimate, log {self.population:,} = "
            f"{limit:.2f}: it may be much larger, and the marginal KL smaller"
        )
        note = caution if float((own - aggregate).mean()) > limit - _NEAR else ""
        value, error = float(moments.mean), moments.standard_error
        kind = "standard error over samples"
        return MetricResult(value, error, kind, note, examples=self.population)
