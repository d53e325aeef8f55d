"""The interface of a metric: collectors see every batch once, metrics read what they kept."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar, cast

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaezoo.data.base import Batch, Split, Splits
from vaezoo.data.loader import BatchLoader
from vaezoo.evaluation.sums import Mean, Sum
from vaezoo.models.base import BaseVAE
from vaezoo.models.distributions import kl_divergence, mode
from vaezoo.plugins.specs import METRIC_REQUIRES
from vaezoo.runtime.seed import seeded

CollectorT = TypeVar("CollectorT", bound="MetricState")


OnProgress = Callable[[str, int, int], None]
"""Hears of progress: what is being done, how much of it is, and of how much."""

FeatureChoice = Literal["auto", "inception", "classifier"]


def no_progress(what: str, done: int, total: int) -> None:
    """Tells nobody."""


class MetricUnavailable(Exception):
    """Raised by a metric or collector for which there is no number here: the reason, in words."""


STREAMS = 16
"""Streams of noise that each batch has: number n has those from n * STREAMS on."""

OVER_EXAMPLES = "standard error over examples"


@dataclass(frozen=True)
class MetricResult:
    """What a metric found.

    value: None where there is no number, and note says why. A note beside a number is a caution.
    uncertainty: how sure it is, `uncertainty_kind` what that is: the standard error over
        examples, or the standard deviation over repetitions with other seeds.
    label: what to call the number where its name does not tell all, as `fid[network]`.
    network: the network whose features were compared; examples: how many the estimate was made
        from. Where the metric says that two numbers must share them.
    """

    value: float | None
    uncertainty: float | None = None
    uncertainty_kind: str = ""
    note: str = ""
    label: str = ""
    network: str = ""
    examples: int = 0

    @classmethod
    def over_examples(cls, found: Mean) -> MetricResult:
        """A mean over the examples, with its standard error."""
        return cls(found.mean, found.standard_error, OVER_EXAMPLES)


@dataclass(frozen=True)
class EvalContext:
    """What is measured, and how.

    capabilities: the tags of the model. batches: the split that is measured, in order. splits: the
    whole data set, where a metric needs more than that split; None if it is not at hand. loaded:
    the split as `splits` has it: the one of `batches` may hold nothing but images on a device.
    split_name, data_name: what they are called.
    importance_samples: draws an example for the log-likelihood, 0 for none. repeats: how often a
    score with chance in it is taken, each time with another seed. download: whether weights may be
    fetched. features: which network images are compared by. tell: hears of progress.
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
    def examples(self) -> int:
        return len(self.split)

    @property
    def device(self) -> torch.device:
        return self.batches.device

    @property
    def factor_names(self) -> tuple[str, ...]:
        return self.splits.factor_names if self.splits is not None else ()

    def noise(self, stream: int) -> AbstractContextManager[None]:
        """Noise of a stream of its own: the same whatever else is measured."""
        return seeded(self.seed * 0x9E3779B1 + stream + 1 & 0x7FFFFFFF, self.device)

    def has(self, need: str) -> bool:
        """Whether model and data have what a word of METRIC_REQUIRES asks for."""
        data = self.model.data
        return {
            "density": "deterministic" not in self.capabilities,
            "continuous": "discrete" not in self.capabilities,
            "images": data.is_image,
            "bounded": data.domain != "real",
            "factors": bool(self.factor_names),
        }.get(need, need in self.capabilities)


class EvalBatch:
    """A batch as metrics see it: everything that several of them ask for is computed once.

    x: [batch, *data.shape]. y: the labels if the model is conditional. labels: those of the data.
    index: where its examples stand in the split, int64 [batch], on the CPU. number: of the batch.
    """

    def __init__(self, setting: EvalContext, batch: Batch, index: Tensor, number: int) -> None:
        self.setting, self.model = setting, setting.model
        self.x, self.labels = batch.x, batch.y
        self.y = self.model.labels(batch.y)
        self.index, self.number = index, number

    def __len__(self) -> int:
        return len(self.x)

    @functools.cached_property
    def posterior(self) -> Distribution:
        return self.model.encode(self.x, self.y)

    @functools.cached_property
    def prior(self) -> Distribution:
        return self.model.prior(self.y)

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
    def latents(self) -> Tensor:
        """What stands for each posterior, its mean as a rule: [batch, latents]."""
        return mode(self.posterior).flatten(1)

    @functools.cached_property
    def reconstruction(self) -> Tensor:
        """[batch, *data.shape], float32."""
        return self.model.reconstruct(self.x, self.y).float()

    @functools.cached_property
    def factors(self) -> Tensor:
        """int64 [batch, factors]. MetricUnavailable where the factors are not known."""
        split = self.setting.loaded or self.setting.split
        found = split.factors(self.index.to(split.device))
        if found is None:
            raise MetricUnavailable(METRIC_REQUIRES["factors"])
        return found.cpu()


class MetricState(ABC):
    """Keeps of every batch what one or several metrics need. `add` is called for each, in order.

    Evaluation runs under no_grad. Nothing should be read back to the host before the end.
    """

    shared: ClassVar[bool] = False
    """Whether several processes may each see some of the batches: all that it keeps is then in
    attributes that are sums (vaezoo.evaluation.sums). Others see every batch, in one process."""

    def __init__(self, setting: EvalContext) -> None:
        self.setting = setting

    @property
    def sums(self) -> dict[str, Sum]:
        """The sums that it keeps, by the names of their attributes."""
        return {name: kept for name, kept in vars(self).items() if isinstance(kept, Sum)}

    @abstractmethod
    def add(self, view: EvalBatch) -> None:
        """See one batch."""


class Evidence:
    """The collectors after they have seen every batch: `evidence[MyCollector]` is yours."""

    def __init__(
        self, setting: EvalContext, collectors: Mapping[type[MetricState], MetricState]
    ) -> None:
        self.setting = setting
        self._collectors = collectors

    def __getitem__(self, kind: type[CollectorT]) -> CollectorT:
        return cast(CollectorT, self._collectors[kind])


class BaseMetric(ABC):
    """A number that a finished model is measured by, registered with a vaezoo.MetricSpec."""

    collects: ClassVar[tuple[type[MetricState], ...]] = ()
    """The collectors that it reads. Metrics that name the same class share one object of it."""

    @abstractmethod
    def measure(self, evidence: Evidence) -> MetricResult:
        """Called once, when every batch has been seen. MetricUnavailable says why there is none."""
