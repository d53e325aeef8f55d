"""Prior and posterior over levels of latents, sampled from the top down, packed in one tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.types import _size

from vaezoo.models.distributions import BaseDistribution, diagonal_normal, kl_divergence

Conditional = Callable[[Tensor], Distribution]
"""From the level above, [..., n above], to a Gaussian over a level, [..., n]."""


class TopDownPrior(BaseDistribution):
    """p(z_L) Π p(z_i | z_i+1) (Sønderby et al. 2016, equation 1). Batch shape ().

    conditionals: p(z_i | z_i+1) of each level but the top one, the lowest first. top: p(z_L).
    sizes: of all levels, the lowest first. temperature: multiplies every standard deviation.
    """

    def __init__(
        self,
        conditionals: Sequence[Conditional],
        top: Distribution,
        sizes: Sequence[int],
        temperature: float = 1.0,
    ) -> None:
        super().__init__((), (sum(sizes),))
        self.conditionals, self.top, self.sizes = conditionals, top, tuple(sizes)
        self.temperature = temperature

    def given(self, level: int, above: Tensor) -> Distribution:
        """p(z_level | z above it), for a level (from 0) below the top one."""
        return self._scaled(self.conditionals[level](above))

    def levels(self, z: Tensor) -> list[Distribution]:
        """Each level's distribution given the level above it in z, [..., Σ sizes]."""
        parts = z.split(self.sizes, -1)
        lower = [self.given(i, parts[i + 1]) for i in range(len(self.conditionals))]
        return [*lower, self._scaled(self.top)]

    def log_prob(self, value: Tensor) -> Tensor:
        return _log_prob(self.levels(value), value, self.sizes)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        with torch.no_grad():
            parts = [self._scaled(self.top).sample(sample_shape)]
            for i in reversed(range(len(self.conditionals))):
                parts.insert(0, self.given(i, parts[0]).sample())
        return torch.cat(parts, -1)

    def with_temperature(self, temperature: float) -> TopDownPrior:
        """Every level's standard deviation scaled, around its mean given the level above."""
        scaled = self.temperature * temperature
        return TopDownPrior(self.conditionals, self.top, self.sizes, scaled)

    def _scaled(self, level: Distribution) -> Distribution:
        if self.temperature == 1.0:
            return level
        return diagonal_normal(level.mean, self.temperature * level.stddev)


class LadderPosterior(BaseDistribution):
    """q(z_L|x) Π q(z_i | z_i+1, x): the upward pass merged with the prior, level by level.

    Sønderby et al. (2016, section 2): below the top, the Gaussian of the upward pass and
    p(z_i | z_i+1) are weighted by their precisions. The top level depends on x alone.

    bottom_up: the Gaussian of each level given x, [batch, n], the lowest first.
    """

    has_rsample = True

    def __init__(self, bottom_up: Sequence[Distribution], prior: TopDownPrior) -> None:
        super().__init__(bottom_up[0].batch_shape, prior.event_shape)
        self.bottom_up, self.prior = bottom_up, prior
        self._last_sample: Tensor | None = None

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        self._last_sample = self._descend(lambda level: level.rsample(), sample_shape)
        return self._last_sample

    def levels(self, z: Tensor) -> list[Distribution]:
        """Each level's distribution given x and the level above it in z."""
        prior = self.prior.levels(z)
        merged = [merge(q, p) for q, p in zip(self.bottom_up, prior[:-1], strict=False)]
        return [*merged, self.bottom_up[-1]]

    def log_prob(self, value: Tensor) -> Tensor:
        return _log_prob(self.levels(value), value, self.prior.sizes)

    def kl_divergence(self, prior: TopDownPrior, z: Tensor) -> Tensor:
        """The sum over levels of the KL to the prior's level, both given the level above in z."""
        if not isinstance(prior, TopDownPrior):
            raise NotImplementedError
        return _sum(self._level_kls(prior, z))

    @property
    def level_kls(self) -> Tensor:
        """The KL of each level to its prior at the last sample, in nats: [levels, ..., batch]."""
        if self._last_sample is None:
            raise RuntimeError("level_kls are those of a sample: call rsample first")
        kls = self._level_kls(self.prior, self._last_sample)
        return torch.stack(torch.broadcast_tensors(*kls))

    @property
    def mode(self) -> Tensor:
        """Each level's mean given the mean above it. The mean has no closed form."""
        return self._descend(lambda level: level.mean, ())

    def _level_kls(self, prior: TopDownPrior, z: Tensor) -> list[Tensor]:
        levels = zip(self.levels(z), prior.levels(z), z.split(self.prior.sizes, -1), strict=True)
        return [kl_divergence(q, p, part) for q, p, part in levels]

    def _descend(self, take: Callable[[Distribution], Tensor], sample_shape: _size) -> Tensor:
        """A value for each level, by `take`, given the value above it: [..., batch, Σ sizes]."""
        top = self.bottom_up[-1]
        parts = [take(top.expand(torch.Size(sample_shape) + top.batch_shape))]
        for i in reversed(range(len(self.prior.conditionals))):
            parts.insert(0, take(merge(self.bottom_up[i], self.prior.given(i, parts[0]))))
        return torch.cat(parts, -1)


def merge(q: Distribution, p: Distribution) -> Distribution:
    """The Gaussian proportional to the product of two: the precisions add up."""
    q_precision, p_precision = q.variance.reciprocal(), p.variance.reciprocal()
    variance = (q_precision + p_precision).reciprocal()
    mean = variance * (q_precision * q.mean + p_precision * p.mean)
    return diagonal_normal(mean, variance.sqrt())


def _log_prob(levels: Sequence[Distribution], z: Tensor, sizes: Sequence[int]) -> Tensor:
    """The sum over levels of the log-density of z, in nats: [...]."""
    parts = zip(levels, z.split(sizes, -1), strict=True)
    return _sum([level.log_prob(part) for level, part in parts])


def _sum(terms: list[Tensor]) -> Tensor:
    """The sum of one or more tensors that broadcast."""
    return sum(terms[1:], start=terms[0])
