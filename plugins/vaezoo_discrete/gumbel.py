"""Categorical latents, trained through relaxed samples (Jang et al. 2016; Maddison et al. 2016)."""

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

from vaezoo import BaseVAE, DataSpec
from vaezoo.errors import OptionError
from vaezoo.models.distributions import to_float32
from vaezoo.models.likelihoods import make_likelihood
from vaezoo.nn.networks import make_decoder, make_encoder

from .options import GumbelOptions


class GumbelVAE(BaseVAE):
    """latent_dim categorical variables, [batch, latent_dim, classes], their prior uniform.

    Two models in one. In evaluation mode the latents are one-hot: its ELBO and its importance
    weights are those of the categorical model, and a bound. In training mode they are relaxed
    (Jang et al. 2016, equation 2) at a temperature that falls with the steps, and the KL is still
    that of the categories, in closed form: the ELBO told in training is a surrogate that gradients
    flow through, no bound.
    """

    options: GumbelOptions
    min_batch_size = 2  # batch norm over a 1×1 image needs two examples

    def __init__(self, options: GumbelOptions, data: DataSpec) -> None:
        super().__init__(options, data)
        if options.min_temperature > options.temperature:
            raise OptionError(
                f"--min-temperature {options.min_temperature:g} is above --temperature "
                f"{options.temperature:g}, and annealing goes down"
            )
        self.latent_shape = (options.latent_dim, options.class_names)
        values = options.latent_dim * options.class_names
        self.encoder = make_encoder(options, data, values)
        self.decoder = make_decoder(options, data, values)
        self.likelihood = make_likelihood(options, data)
        self.temperature: Tensor
        self.register_buffer("temperature", torch.tensor(options.temperature))

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return self._variables(to_float32(self.encoder(x)).unflatten(1, self.latent_shape))

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return self.likelihood(self.decoder(z.flatten(1)))

    def prior(self, y: Tensor | None = None) -> Distribution:
        return self._variables(torch.zeros(self.latent_shape, device=self.temperature.device))

    def on_train_step(self, step: Tensor) -> None:
        """temperature · exp(-r · step) down to the lowest (Jang et al. 2016, section 4.2)."""
        first, last = self.options.temperature, self.options.min_temperature
        rate = math.log(first / last) / self.options.anneal_steps
        self.temperature.copy_((first * torch.exp(-rate * step)).clamp(min=last))

    def _variables(self, logits: Tensor) -> Distribution:
        """Independent variables with these logits, [..., latent_dim, classes]."""
        if self.training:
            return RelaxedCategories(logits, self.temperature)
        one_hot = OneHotCategoricalStraightThrough(logits=logits, validate_args=False)
        return Independent(one_hot, 1, validate_args=False)


class RelaxedCategories(Independent[RelaxedOneHotCategorical]):
    """Variables on the simplex that tend to one-hot ones as the temperature falls to 0.

    `rsample` and `log_prob` are those of the relaxation (Maddison et al. 2016, equation 10), `mean`
    and `kl_divergence` those of the categories it stands for.

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
        # The density has a logarithm of what may have rounded to 0.
        return super().log_prob(value.clamp(min=torch.finfo(value.dtype).tiny))

    def kl_divergence(self, prior: RelaxedCategories, z: Tensor) -> Tensor:
        return (self.mean * (self.log_probs - prior.log_probs)).sum((-1, -2))
