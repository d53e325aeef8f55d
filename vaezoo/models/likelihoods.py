"""Likelihoods p(x|z): modules that map the decoder's output to a distribution over examples.

The distribution's mean is the reconstruction, in [0, 1] unless the data is real; its
log-probability is in nats per example.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution

from vaezoo.data.spec import DataSpec
from vaezoo.models.distributions import IsotropicNormal, independent, to_float32
from vaezoo.models.likelihood import Likelihood
from vaezoo.options import Options

SMALLEST_SCALE = 1 / 256
"""The lower limit of a Gaussian's scale, one grey level. Below it the density diverges."""


class BernoulliLikelihood(Likelihood):
    """Each value is 1 with probability sigmoid(raw).

    On grey values in (0, 1) this is the usual cross-entropy, not a normalised likelihood.
    """

    normalised_on = ("binary",)

    def __init__(self, data: DataSpec) -> None:
        super().__init__(Options(), data)

    def forward(self, raw: Tensor) -> Distribution:
        return independent(Bernoulli(logits=to_float32(raw), validate_args=False), raw.dim() - 1)


class GaussianLikelihood(Likelihood):
    """Each value is Gaussian around a mean in [0, 1], with one scale for all of them.

    The mean is (tanh(raw) + 1) / 2, or raw itself for real data, whose values are standardised;
    log-probabilities are of the data before that.

    scale: standard deviation in units of the [0, 1] range or of standardised values; the initial
        value if it is learned.
    learned: whether the scale is a parameter (Rybkin et al. 2020, sigma-VAE, section 3.2) or fixed
        (a weighted mean squared error).
    """

    normalised_on = ("unit", "real")

    def __init__(self, data: DataSpec, scale: float, learned: bool) -> None:
        super().__init__(Options(), data)
        log_scale = torch.tensor(math.log(scale))
        if learned:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale, persistent=False)

    def forward(self, raw: Tensor) -> Distribution:
        raw = to_float32(raw)
        mean = (torch.tanh(raw) + 1.0) / 2.0 if self.data.domain != "real" else raw
        scale = self.log_scale.clamp(min=math.log(SMALLEST_SCALE)).exp()
        return IsotropicNormal(mean, scale, mean.dim() - 1, self.data.log_det)
