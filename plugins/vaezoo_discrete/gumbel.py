"""Categorical latents with relaxed samples (Jang et al. 2016; Maddison et al. 2016)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    OneHotCategoricalStraightThrough,
    RelaxedOneHotCategorical,
)

from vaezoo import Bottleneck
from vaezoo.errors import OptionError
from vaezoo.models.distributions import independent, to_float32

from .options import GumbelOptions


class GumbelBottleneck(Bottleneck):
    """Categorical latents, [batch, latent_dim, classes], and a uniform prior.

    In evaluation mode the latents are one-hot: ELBO and importance weights are those of the
    categorical model, and the ELBO is a bound. In training mode they are relaxed (Jang et al. 2016,
    equation 2) at a temperature that falls with the steps, while the KL is still that of the
    categories, in closed form. So the ELBO reported in training is a surrogate, not a bound.
    """

    options: GumbelOptions

    def __init__(self, options: GumbelOptions, grid: tuple[int, ...] = ()) -> None:
        if options.min_temperature > options.temperature:
            raise OptionError(
                f"--min-temperature {options.min_temperature:g} is above --temperature "
                f"{options.temperature:g}; give a smaller one"
            )
        super().__init__(options)
        self.num_params = options.latent_dim * options.classes
        self.latent_shape = (options.latent_dim, options.classes)
        self.temperature: Tensor
        self.register_buffer("temperature", torch.tensor(options.temperature))

    @property
    def out_features(self) -> int:
        return self.num_params

    def forward(self, params: Tensor) -> Distribution:
        return self._distribution(to_float32(params).unflatten(1, self.latent_shape))

    def decoder_input(self, z: Tensor) -> Tensor:
        return z.flatten(1)

    def prior(self) -> Distribution:
        return self._distribution(self._origin.new_zeros(self.latent_shape))

    def on_train_step(self, step: Tensor) -> None:
        """Set the temperature: max(minimum, first · exp(-r · step)) (Jang et al. 2016, 4.2)."""
        first, last = self.options.temperature, self.options.min_temperature
        rate = math.log(first / last) / self.options.anneal_steps
        self.temperature.copy_((first * torch.exp(-rate * step)).clamp(min=last))

    def _distribution(self, logits: Tensor) -> Distribution:
        """Independent variables with these logits, [..., latent_dim, classes]."""
        if self.training:
            return RelaxedCategories(logits, self.temperature)
        return independent(OneHotCategoricalStraightThrough(logits=logits, validate_args=False))


class RelaxedCategories(Independent[RelaxedOneHotCategorical]):
    """Independent relaxed one-hot variables, with the KL divergence of the categories.

    `rsample` and `log_prob` are those of the relaxation (Maddison et al. 2016, equation 10); `mean`
    and `kl_divergence` are those of the categorical variables.

    logits: [..., variables, classes]. temperature: > 0, 0-dim.
    """

    def __init__(self, logits: Tensor, temperature: Tensor) -> None:
        relaxed = RelaxedOneHotCategorical(temperature, logits=logits, validate_args=False)
        super().__init__(relaxed, 1, validate_args=False)
        self.log_probs = logits.log_softmax(-1)

    @property
    def mean(self) -> Tensor:
        return self.log_probs.exp()

    def log_prob(self, value: Tensor) -> Tensor:
        # A coordinate may have rounded to 0, and the density takes its logarithm.
        return super().log_prob(value.clamp(min=torch.finfo(value.dtype).tiny))

    def kl_divergence(self, prior: RelaxedCategories, z: Tensor) -> Tensor:
        if not isinstance(prior, RelaxedCategories):
            raise NotImplementedError
        return (self.mean * (self.log_probs - prior.log_probs)).sum((-1, -2))
