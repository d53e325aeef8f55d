"""The Student-t likelihood: heavy tails for data with outliers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn import functional as F
from torch.types import _size

from vaezoo import DataSpec

from .gamma import HALF_LOG_2PI, stirling_remainder
from .independent import IndependentValues
from .location_scale import LocationScaleLikelihood
from .options import StudentTOptions


class StudentT(IndependentValues):
    """Independent values with Student's t distribution; torch's reads from the device.

    df: degrees of freedom above 1, 0-dim. loc: [batch, *event]. scale: broadcast against it.
    log_det: `DataSpec.log_det` for standardised values, whose density is then that of the data.
    """

    def __init__(self, df: Tensor, loc: Tensor, scale: Tensor, log_det: float = 0.0) -> None:
        super().__init__(loc)
        self.df = df
        self.loc = loc
        self.scale = scale
        self.log_det = log_det

    def value_log_prob(self, value: Tensor) -> Tensor:
        half = self.df / 2
        # log Γ(df/2 + ½) - log Γ(df/2) - ½ log(df/2) by Stirling's formula
        gammas = half * torch.log1p(0.5 / half) - 0.5
        gammas = gammas + stirling_remainder(half + 0.5) - stirling_remainder(half)
        squares = ((value - self.loc) / self.scale).square()
        tails = (half + 0.5) * torch.log1p(squares / self.df)
        return gammas - HALF_LOG_2PI - self.scale.log() - tails

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value) - self.log_det

    @property
    def mean(self) -> Tensor:
        return self.loc

    def sample(self, sample_shape: _size = ()) -> Tensor:
        with torch.no_grad():
            half = (self.df / 2).expand(self.extended(sample_shape))
            noise = torch.randn_like(half) * (half / torch._standard_gamma(half)).sqrt()
            return self.loc + self.scale * noise


class StudentTLikelihood(LocationScaleLikelihood):
    """Each value has Student's t distribution around its location (Takahashi et al. 2018, eq. 5).

    options.scale: the scale parameter. options.degrees_of_freedom: above 1, so that the mean is the
    location; with `learn_degrees_of_freedom` one learned number.
    """

    def __init__(self, options: StudentTOptions, data: DataSpec) -> None:
        super().__init__(options, data)
        # df = 1 + softplus(raw_df)
        raw = torch.tensor(
            options.degrees_of_freedom - 1 + math.log(-math.expm1(1 - options.degrees_of_freedom))
        )
        if options.learn_degrees_of_freedom:
            self.raw_df = nn.Parameter(raw)
        else:
            self.register_buffer("raw_df", raw, persistent=False)

    @property
    def df(self) -> Tensor:
        """The degrees of freedom, 0-dim, above 1."""
        return 1.0 + F.softplus(self.raw_df)

    def forward(self, params: Tensor) -> Distribution:
        loc, scale = self.loc_and_scale(params)
        return StudentT(self.df, loc, scale, self.log_det)
