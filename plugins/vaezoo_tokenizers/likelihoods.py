"""The likelihoods `laplace_linear` and `gaussian_linear`, whose locations are not squashed."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Laplace, Normal

from vaezoo import DataSpec, Likelihood
from vaezoo.models.distributions import to_float32
from vaezoo.models.likelihoods import SMALLEST_SCALE

from .options import LinearOptions


class UnboundedLocation(Independent[Distribution]):
    """A density with an unbounded location; its `mean` is the location, clamped to [0, 1].

    `base_dist.mean` is not clamped.
    """

    @property
    def mean(self) -> Tensor:
        return self.base_dist.mean.clamp(0.0, 1.0)

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(to_float32(value))


class LinearLikelihood(Likelihood):
    """Each value has the location (raw + 1) / 2, so that raw is the value in [-1, 1].

    There is no tanh, as in latent diffusion (Rombach et al. 2022): the decoder gives the value
    itself. Training sees the location as it is; a reconstruction is the location clamped to [0, 1].
    """

    normalised_on = ("unit",)
    family: ClassVar[type[Laplace] | type[Normal]]
    options: LinearOptions

    def __init__(self, options: LinearOptions, data: DataSpec) -> None:
        super().__init__(options, data)
        log_scale = torch.tensor(math.log(options.scale))
        if options.learn_scale:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale, persistent=False)

    def forward(self, params: Tensor) -> Distribution:
        loc = (to_float32(params) + 1.0) / 2.0
        scale = self.log_scale.clamp(min=math.log(SMALLEST_SCALE)).exp()
        base = self.family(loc, scale, validate_args=False)
        return UnboundedLocation(base, loc.dim() - 1, validate_args=False)


class LaplaceLinearLikelihood(LinearLikelihood):
    """LinearLikelihood with the density exp(-|x - loc| / scale) / (2 scale).

    At scale 0.5 its negative logarithm is the sum of absolute errors of values in [-1, 1], and a
    constant: the reconstruction term of latent diffusion.
    """

    family = Laplace


class GaussianLinearLikelihood(LinearLikelihood):
    """LinearLikelihood with a Gaussian of standard deviation `scale`."""

    family = Normal
