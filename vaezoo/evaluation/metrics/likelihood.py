"""How probable the model finds the data: the ELBO and its parts, the importance-weighted bound."""

from __future__ import annotations

from vaezoo.evaluation.metric import (
    OVER_EXAMPLES,
    STREAMS,
    BaseMetric,
    EvalBatch,
    EvalContext,
    Evidence,
    MetricResult,
    MetricState,
    MetricUnavailable,
)
from vaezoo.evaluation.sums import Mean

_IMPORTANCE_NOISE = 1


class Bound(MetricState):
    """Rate and distortion of each example at one sample of its posterior."""

    shared = True

    def __init__(self, setting: EvalContext) -> None:
        super().__init__(setting)
        self.rate, self.distortion, self.elbo = Mean(), Mean(), Mean()

    def add(self, view: EvalBatch) -> None:
        self.rate.add(view.rate)
        self.distortion.add(view.distortion)
        self.elbo.add(-view.rate.double() - view.distortion.double())


class Elbo(BaseMetric):
    collects = (Bound,)

    def measure(self, evidence: Evidence) -> MetricResult:
        bound = evidence[Bound]
        elbo = -bound.rate.mean - bound.distortion.mean
        return MetricResult(elbo, bound.elbo.standard_error, OVER_EXAMPLES)


class Rate(BaseMetric):
    collects = (Bound,)

    def measure(self, evidence: Evidence) -> MetricResult:
        return MetricResult.over_examples(evidence[Bound].rate)


class Distortion(BaseMetric):
    collects = (Bound,)

    def measure(self, evidence: Evidence) -> MetricResult:
        return MetricResult.over_examples(evidence[Bound].distortion)


class BitsPerDim(BaseMetric):
    collects = (Bound,)

    def measure(self, evidence: Evidence) -> MetricResult:
        bound, model = evidence[Bound], evidence.setting.model
        likelihood = getattr(model, "likelihood", None)
        nats = bound.rate.mean + bound.distortion.mean
        bits = None if likelihood is None else likelihood.bits_per_dim(nats, model.data)
        if bits is None:
            raise MetricUnavailable("its likelihood is not one of the data's levels")
        return MetricResult(bits)


class Importance(MetricState):
    """The importance-weighted estimate of each example, in chunks of the model's choosing."""

    shared = True

    def __init__(self, setting: EvalContext) -> None:
        super().__init__(setting)
        self.log_p = Mean()

    def add(self, view: EvalBatch) -> None:
        samples = self.setting.importance_samples
        if not samples:
            raise MetricUnavailable("give --importance-samples to estimate it")
        with self.setting.noise(_IMPORTANCE_NOISE + view.number * STREAMS):
            self.log_p.add(view.model.log_likelihood(view.x, view.y, samples=samples))


class LogLikelihood(BaseMetric):
    collects = (Importance,)

    def measure(self, evidence: Evidence) -> MetricResult:
        return MetricResult.over_examples(evidence[Importance].log_p)
