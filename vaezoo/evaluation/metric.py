"""The interface of a metric: MetricState, what it sees, and MetricResult, its value."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaezoo.data.base import Batch, Split, Splits, Standardizer
from vaezoo.data.loader import BatchLoader
from vaezoo.evaluation.accumulators import Accumulator, RunningMoments
from vaezoo.models.base import BaseVAE
from vaezoo.models.distributions import kl_divergence, mode
from vaezoo.plugins.specs import METRIC_REQUIRES
from vaezoo.runtime import OnProgress
from vaezoo.runtime.device import seeded

FeatureChoice = Literal["auto", "inception", "classifier"]

_STREAMS = 16
"""Streams of noise that each batch has."""

POSTERIOR_NOISE, _IMPORTANCE_NOISE = 0, 1
"""The streams of the sample of each posterior, and of those of the log-likelihood."""

MIN_EXAMPLES, MAX_EXAMPLES = 1000, 10_000
"""How many examples scores of a whole sample need at least, and use at most."""

OVER_EXAMPLES = "standard error over examples"

_NEED_PRIOR_DENSITY = ("elbo", "importance", "density")


def no_progress(what: str, done: int, total: int) -> None:
    """Show no progress."""


class MetricUnavailable(Exception):
    """Raised by a metric that has no value for this model or data. The message is the reason."""


@dataclass(frozen=True)
class MetricResult:
    """The value of a metric, from its computation to the report.

    value: None if there is none, and `note` says why. A note beside a value is a caution.
    uncertainty: the standard error over examples, or the standard deviation over repetitions;
        `uncertainty_kind` says which.
    label: the name to show if it is not the metric's, as `fid[network]`.
    network: the network whose features were compared. examples: the number of examples that the
        value was computed from; 0 stands for all of the split.
    unit, direction, comparable: set by `evaluate`. Two values of a metric may be ranked if, and
        only if, their `comparable` is the same text.
    """

    value: float | None
    uncertainty: float | None = None
    uncertainty_kind: str = ""
    note: str = ""
    label: str = ""
    network: str = ""
    examples: int = 0
    unit: str = ""
    direction: str = "neither"
    comparable: str = ""

    @classmethod
    def over_examples(cls, values: RunningMoments) -> MetricResult:
        """A mean over the examples, with its standard error."""
        return cls(float(values.mean), values.standard_error, OVER_EXAMPLES)


@dataclass(frozen=True)
class EvalContext:
    """What is evaluated, and the options of the evaluation.

    capabilities: the tags of the model. batches: the split that is evaluated, in order.
    splits: the whole data set, for metrics that need more than that split; None if it is not
        available. loaded: the split as `splits` has it: that of `batches` may hold only images.
    split_name, data_name: their names. importance_samples: samples an example for the
        log-likelihood, 0 for none. repeats: how often a random score is computed, each time with
        another seed. download: whether weights may be downloaded. features: the network whose
        features compare images. on_progress: see OnProgress.
    """

    model: BaseVAE
    capabilities: frozenset[str]
    batches: BatchLoader
    splits: Splits | None = None
    loaded: Split | None = None
    split_name: str = "test"
    data_name: str = ""
    seed: int = 0
    importance_samples: int = 0
    repeats: int = 5
    download: bool = False
    features: FeatureChoice = "auto"
    on_progress: OnProgress = no_progress

    @property
    def split(self) -> Split:
        return self.batches.split

    @property
    def num_examples(self) -> int:
        return len(self.split)

    @property
    def device(self) -> torch.device:
        return self.batches.device

    def noise(self, stream: int) -> AbstractContextManager[None]:
        """Seed the generators with a stream of its own, which no other metric changes."""
        return seeded(self.seed * 0x9E3779B1 + stream + 1 & 0x7FFFFFFF, self.device)

    def has(self, requirement: str) -> bool:
        """Whether model and data meet a requirement, a word of METRIC_REQUIRES."""
        needs_density = requirement in _NEED_PRIOR_DENSITY
        return self._has(requirement) and (not needs_density or self.model.prior_has_density)

    def _has(self, requirement: str) -> bool:
        """`has`, whatever the sampler is."""
        data = self.model.data
        return {
            "density": "deterministic" not in self.capabilities,
            "continuous": "discrete" not in self.capabilities,
            "images": data.is_image,
            "bounded": data.is_bounded,
            "factors": self.splits is not None and bool(self.splits.factor_names),
        }.get(requirement, requirement in self.capabilities)

    def why_not(self, requirement: str) -> str:
        """Why a requirement is not met, in words."""
        if self._has(requirement):
            return "its sampler has no density where the latents are"
        return METRIC_REQUIRES[requirement]

    def require_examples(self, count: int) -> None:
        """Raise MetricUnavailable if the split has fewer examples."""
        if self.num_examples < count:
            found = f"this split has {self.num_examples:,}"
            raise MetricUnavailable(f"it needs {count:,} examples or more, and {found}")


class EvalBatch:
    """A batch of the evaluated split. What several metrics need is computed once.

    x: [batch, *data.shape], as the model gets it: standardised if the data is real-valued.
    original and reconstruction: in the data's units. y: the labels if the model is conditional.
    labels: those of the data.
    index: positions of the examples in the split, int64 [batch], on the CPU. number: of the batch.
    """

    def __init__(self, context: EvalContext, batch: Batch, index: Tensor, number: int) -> None:
        self.context, self.model = context, context.model
        self.x, self.labels = batch.x, batch.y
        self.y = self.model.labels(batch.y)
        self.index, self.number = index, number
        self._standardizer = Standardizer(self.model.data).to(self.x.device)

    def __len__(self) -> int:
        return len(self.x)

    def noise(self, stream: int) -> AbstractContextManager[None]:
        """Seed the generators for this batch. stream: below 16; evaluation itself uses 0 and 3."""
        return self.context.noise(stream + self.number * _STREAMS)

    @functools.cached_property
    def posterior(self) -> Distribution:
        return self.model.encode(self.x, self.y)

    @functools.cached_property
    def prior(self) -> Distribution:
        return self.model.density_prior(self.y)

    @functools.cached_property
    def z(self) -> Tensor:
        """One sample of the posterior, [batch, *latent_shape]."""
        return self.posterior.rsample()

    @functools.cached_property
    def rate(self) -> Tensor:
        """KL from posterior to prior, nats: [batch]."""
        return kl_divergence(self.posterior, self.prior, self.z)

    @functools.cached_property
    def distortion(self) -> Tensor:
        """-log p(x|z), nats: [batch]."""
        log_p: Tensor = self.model.decode(self.z, self.y).log_prob(self.x)
        return -log_p

    @functools.cached_property
    def elbo(self) -> Tensor:
        """-(rate + distortion), nats: [batch], in double precision."""
        return -self.rate.double() - self.distortion.double()

    @functools.cached_property
    def log_likelihood(self) -> Tensor:
        """The importance-weighted estimate of log p(x), nats: [batch]."""
        samples = self.context.importance_samples
        with self.noise(_IMPORTANCE_NOISE):
            return self.model.log_likelihood(self.x, self.y, samples=samples)

    @functools.cached_property
    def mse(self) -> Tensor:
        """The mean squared error of the reconstruction, in the data's units squared: [batch]."""
        return (self.reconstruction - self.original).square().flatten(1).mean(1)

    @functools.cached_property
    def latents(self) -> Tensor:
        """The mode of each posterior: [batch, latents]."""
        return mode(self.posterior).flatten(1)

    @functools.cached_property
    def reconstruction(self) -> Tensor:
        """[batch, *data.shape], float32."""
        return self._standardizer.inverse(self.model.reconstruct(self.x, self.y).float())

    @functools.cached_property
    def original(self) -> Tensor:
        """[batch, *data.shape], float32."""
        return self._standardizer.inverse(self.x)

    @functools.cached_property
    def factors(self) -> Tensor:
        """int64 [batch, factors]. MetricUnavailable where the factors are not known."""
        split = self.context.loaded or self.context.split
        found = split.factors(self.index.to(split.device))
        if found is None:
            raise MetricUnavailable(METRIC_REQUIRES["factors"])
        return found.cpu()


class MetricState(ABC):
    """What one or several metrics accumulate over the batches, and how they compute their values.

    A metric is a method without arguments that returns a MetricResult; it has the name under which
    a vaezoo.MetricSpec registers it. Metrics of the same class share one object. `update` is called
    for each batch in order, under no_grad; then each metric that was asked for is called once.
    Nothing should be read back from the device before that.
    """

    mergeable: ClassVar[bool] = False
    """True if each of several processes may see a part of the batches: all that `update` changes is
    then in attributes that are accumulators (vaezoo.evaluation.accumulators). Otherwise one process
    sees all batches."""

    def __init__(self, context: EvalContext) -> None:
        self.context = context

    @property
    def accumulators(self) -> dict[str, Accumulator]:
        """Its accumulators by the names of their attributes."""
        return {name: held for name, held in vars(self).items() if isinstance(held, Accumulator)}

    @abstractmethod
    def update(self, batch: EvalBatch) -> None:
        """Accumulate one batch. MetricUnavailable says why there can be no value."""


class ExampleMoments(MetricState):
    """The mean and the variance over the examples of what `measure` gives for each of them."""

    mergeable = True

    def __init__(self, context: EvalContext) -> None:
        super().__init__(context)
        self.values = RunningMoments()

    def update(self, batch: EvalBatch) -> None:
        self.values.update(self.measure(batch))

    def mean(self) -> MetricResult:
        """The mean over the examples, with its standard error."""
        return MetricResult.over_examples(self.values)

    @abstractmethod
    def measure(self, batch: EvalBatch) -> Tensor:
        """One number for each example, or several: [batch, ...]."""
