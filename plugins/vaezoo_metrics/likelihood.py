"""Metrics of the likelihood: the ELBO and its parts, and the importance-weighted bound."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from vaezoo import MetricState
from vaezoo.evaluation.accumulators import RunningMoments
from vaezoo.evaluation.metric import (
    EvalBatch,
    EvalContext,
    ExampleMoments,
    MetricResult,
    MetricUnavailable,
)


class Bound(MetricState):
    """Rate and distortion of each example at one sample of its posterior."""

    mergeable = True

    def __init__(self, context: EvalContext) -> None:
        super().__init__(context)
        self.rates, self.distortions = RunningMoments(), RunningMoments()
        self.elbos = RunningMoments()

    def update(self, batch: EvalBatch) -> None:
        self.rates.update(batch.rate)
        self.distortions.update(batch.distortion)
        self.elbos.update(batch.elbo)

    def elbo(self) -> MetricResult:
        value = -float(self.rates.mean) - float(self.distortions.mean)
        return replace(MetricResult.over_examples(self.elbos), value=value)

    def rate(self) -> MetricResult:
        return MetricResult.over_examples(self.rates)

    def distortion(self) -> MetricResult:
        return MetricResult.over_examples(self.distortions)

    def bits_per_dim(self) -> MetricResult:
        model = self.context.model
        likelihood = getattr(model, "likelihood", None)
        nats = float(self.rates.mean) + float(self.distortions.mean)
        bits = None if likelihood is None else likelihood.bits_per_dim(nats, model.data)
        if bits is None:
            raise MetricUnavailable("its likelihood is not a distribution over grey levels")
        return MetricResult(bits)


class LogLikelihood(ExampleMoments):
    """The importance-weighted estimate of each example, in chunks of a size that the model sets."""

    def measure(self, batch: EvalBatch) -> Tensor:
        if not self.context.importance_samples:
            raise MetricUnavailable("give --importance-samples to estimate it")
        return batch.log_likelihood

    log_likelihood = ExampleMoments.mean
