"""Student's t posterior and prior: heavier tails than a Gaussian."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.utils import broadcast_all
from torch.types import _size

from vaezoo.models.distributions import BaseDistribution, independent

from .latent import LocationScaleBottleneck
from .options import StudentTOptions


class StudentT(BaseDistribution):
    """Student's t distribution with location and scale: [...] each, event shape ().

    df: degrees of freedom, > 2, so that there is a variance. Unlike torch.distributions.StudentT
    it draws no gamma variable, reads nothing back from the device, and has gradients by df in
    closed form.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "df": constraints.greater_than(2),
        "loc": constraints.real,
        "scale": constraints.positive,
    }
    has_rsample = True

    def __init__(self, df: Tensor, loc: Tensor, scale: Tensor) -> None:
        self.df, self.loc, self.scale = broadcast_all(df, loc, scale)
        super().__init__(self.loc.shape, ())

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return self.scale.square() * self.df / (self.df - 2)

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        """Samples by the polar method of Bailey (1994, equation 4).

        √(df (U^(−2/df) − 1)) cos(2π V) for uniform U and V; as df grows it is that of Box & Muller.
        """
        shape = self._extended_shape(sample_shape)
        exponential = torch.empty(shape, dtype=self.loc.dtype, device=self.loc.device)
        exponential.exponential_()  # −log U, with more digits in the tail
        angle = 2 * math.pi * torch.rand_like(exponential)
        radius = torch.sqrt(self.df * torch.expm1(2 / self.df * exponential))
        return self.loc + self.scale * radius * torch.cos(angle)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density in nats: [...]."""
        standard = (value - self.loc) / self.scale
        half = 0.5 * (self.df + 1)
        normalizer = torch.lgamma(half) - torch.lgamma(0.5 * self.df)
        normalizer = normalizer - 0.5 * torch.log(math.pi * self.df) - self.scale.log()
        return normalizer - half * torch.log1p(standard.square() / self.df)


class StudentTBottleneck(LocationScaleBottleneck):
    """q(z|x) and p(z) are Student's t distributions with the same `df`, independent over latents.

    The prior has mean 0 and variance 1, as the standard Gaussian, which it becomes as df grows. The
    encoder gives means and log-variances, as of a Gaussian posterior.

    The degrees of freedom are the same in both, so the tails of q(z|x) and of p(z) fall alike: the
    ratio of the two is bounded in both directions, and importance weights have finite variance. A
    posterior with heavier tails than its prior could have an infinite KL. (Heavy-tailed priors for
    VAEs: Abiri & Ohlsson 2020.) The KL has no closed form: the rate is its single-sample estimate.
    """

    options: StudentTOptions

    def __init__(self, options: StudentTOptions, grid: tuple[int, ...] = ()) -> None:
        super().__init__(options, grid)
        self.df: Tensor
        self.register_buffer("df", torch.tensor(options.df), persistent=False)

    def distribution(self, mean: Tensor, std: Tensor) -> Distribution:
        scale = std * torch.sqrt((self.df - 2) / self.df)
        return independent(StudentT(self.df, mean, scale), len(self.latent_shape))
