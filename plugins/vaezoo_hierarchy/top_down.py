"""Distributions over levels of latents, drawn from the top down and packed into one tensor."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.types import _size

from vaezoo.models.distributions import BaseDistribution, diagonal_normal, kl_divergence

Conditional = Callable[[Tensor], Distribution]
"""From the level above, [..., n above], to a Gaussian over a level, [..., n]."""


class TopDownPrior(BaseDistribution):
    """p(z_L) Π p(z_i | z_i+1): the levels side by side, the lowest first. Batch shape ().

    Sønderby et al. (2016), equation 1.

    below: p(z_i | z_i+1) of each level but the top one, the lowest first. top: p(z_L).
    sizes: of all levels, the lowest first. temperature: multiplies every standard deviation.
    """

    def __init__(
        self,
        below: Sequence[Conditional],
        top: Distribution,
        sizes: Sequence[int],
        temperature: float = 1.0,
    ) -> None:
        super().__init__((), (sum(sizes),))
        self.below, self.top, self.sizes = below, top, tuple(sizes)
        self.temperature = temperature

    def given(self, level: int, above: Tensor) -> Distribution:
        """p(z_level | z above it), for a level (from 0) under the top one."""
        return self._tempered(self.below[level](above))

    def levels(self, z: Tensor) -> list[Distribution]:
        """Each level's distribution given the level above it in z, [..., Σ sizes]."""
        parts = z.split(self.sizes, -1)
        under = [self.given(i, parts[i + 1]) for i in range(len(self.below))]
        return [*under, self._tempered(self.top)]

    def log_prob(self, value: Tensor) -> Tensor:
        return _log_prob(self.levels(value), value, self.sizes)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        with torch.no_grad():
            parts = [self._tempered(self.top).sample(sample_shape)]
            for i in reversed(range(len(self.below))):
                parts.insert(0, self.given(i, parts[0]).sample())
        return torch.cat(parts, -1)

    def with_temperature(self, temperature: float) -> TopDownPrior:
        """Every level's spread scaled around its own mean, given the level above."""
        return TopDownPrior(self.below, self.top, self.sizes, self.temperature * temperature)

    def _tempered(self, level: Distribution) -> Distribution:
        if self.temperature == 1.0:
            return level
        return diagonal_normal(level.mean, self.temperature * level.stddev)


class LadderPosterior(BaseDistribution):
    """q(z_L|x) Π q(z_i | z_i+1, x): what x says of each level, merged with the top-down prior.

    Sønderby et al. (2016, section 2): below the top, what x says and p(z_i | z_i+1) are weighted by
    their precisions. The top level goes by x alone.

    evidence: what x says of each level, [batch, n], the lowest first.
    """

    has_rsample = True

    def __init__(self, evidence: Sequence[Distribution], prior: TopDownPrior) -> None:
        super().__init__(evidence[0].batch_shape, prior.event_shape)
        self.evidence, self.prior = evidence, prior
        self._drawn: Tensor | None = None

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        self._drawn = self._descend(lambda level: level.rsample(), sample_shape)
        return self._drawn

    def levels(self, z: Tensor) -> list[Distribution]:
        """Each level's distribution given x and the level above it in z."""
        prior = self.prior.levels(z)
        merged = [merge(q, p) for q, p in zip(self.evidence, prior[:-1], strict=False)]
        return [*merged, self.evidence[-1]]

    def log_prob(self, value: Tensor) -> Tensor:
        return _log_prob(self.levels(value), value, self.prior.sizes)

    def kl_divergence(self, prior: TopDownPrior, z: Tensor) -> Tensor:
        """The sum over levels of the KL to the prior's level, both given the level above in z."""
        return _sum(self._level_kls(prior, z))

    @property
    def level_kls(self) -> Tensor:
        """Of each level, to its own top-down prior at the last draw: nats, [levels, ..., batch]."""
        if self._drawn is None:
            raise RuntimeError("level_kls are those of a draw: call rsample first")
        kls = self._level_kls(self.prior, self._drawn)
        return torch.stack(torch.broadcast_tensors(*kls))

    @property
    def mode(self) -> Tensor:
        """Each level's mean given the mean above it. The mean has no closed form."""
        return self._descend(lambda level: level.mean, ())

    def _level_kls(self, prior: TopDownPrior, z: Tensor) -> list[Tensor]:
        pairs = zip(self.levels(z), prior.levels(z), z.split(self.prior.sizes, -1), strict=True)
        return [kl_divergence(q, p, part) for q, p, part in pairs]

    def _descend(self, take: Callable[[Distribution], Tensor], sample_shape: _size) -> Tensor:
        top = self.evidence[-1]
        parts = [take(top.expand(torch.Size(sample_shape) + top.batch_shape))]
        for i in reversed(range(len(self.prior.below))):
            parts.insert(0, take(merge(self.evidence[i], self.prior.given(i, parts[0]))))
        return torch.cat(parts, -1)


def merge(evidence: Distribution, prior: Distribution) -> Distribution:
    """The Gaussian in proportion to the product of the two: precisions add up."""
    of_evidence, of_prior = evidence.variance.reciprocal(), prior.variance.reciprocal()
    variance = (of_evidence + of_prior).reciprocal()
    mean = variance * (of_evidence * evidence.mean + of_prior * prior.mean)
    return diagonal_normal(mean, variance.sqrt())


def _log_prob(levels: Sequence[Distribution], z: Tensor, sizes: Sequence[int]) -> Tensor:
    """In nats: [...]."""
    pairs = zip(levels, z.split(sizes, -1), strict=True)
    return _sum([level.log_prob(part) for level, part in pairs])


def _sum(terms: list[Tensor]) -> Tensor:
    """Of one or more, broadcast against one another."""
    return functools.reduce(torch.add, terms)
