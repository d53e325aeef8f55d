"""The objective of an adversarial autoencoder (Makhzani et al. 2015)."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from vaezoo import BaseLoss, BaseVAE, Batch, DataSpec, LossOutput, Phase, StepContext
from vaezoo.models.distributions import sample_prior
from vaezoo.nn.batch_norm import freeze_bn_stats

from .critics import DenseCritic, cross_entropy
from .directions import encoder_parameters, trainable
from .options import AaeOptions


class AaeLoss(BaseLoss):
    """The distortion, and a critic in the place of the rate (Makhzani et al. 2015, section 2).

    Three phases: `reconstruction`, of the whole autoencoder; `critic`, which tells draws of the
    prior from latents; `encoder`, which makes latents that the critic takes for the prior's, by
    the gradient that does not vanish (-log D, Goodfellow et al. 2014, section 3). What is matched
    is the aggregate posterior: at the optimum the latents of all images together are distributed
    as the prior, whatever q(z|x) is.

    It goes with any posterior that gradients flow through. With a point (the model `aae`) there is
    no ELBO. With a Gaussian (`vaezoo train vanilla --loss aae`) there is one, which was not
    minimised but is the bound that it always is.
    """

    options: AaeOptions

    def __init__(self, options: AaeOptions, model: BaseVAE, data: DataSpec) -> None:
        super().__init__(options, model, data)
        self.critic = DenseCritic(math.prod(model.latent_shape), options.critic_hidden)

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        distortion = -model(batch.x, batch.y).likelihood.log_prob(batch.x)
        return LossOutput(distortion.mean(), {"distortion": distortion})

    def tell_apart(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        """The critic's objective: its cross-entropy, 2 log 2 at chance."""
        y = model.labels(batch.y)
        with torch.no_grad(), freeze_bn_stats(model):
            z = model.encode(batch.x, y).rsample()
            wanted = sample_prior(model.prior(y), len(batch.x))
        return LossOutput(cross_entropy(self.critic(wanted), self.critic(z)), {})

    def fit_in(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        """The encoder's objective against the critic: log 2 at chance."""
        z = model.encode(batch.x, model.labels(batch.y)).rsample()
        return LossOutput(F.softplus(-self.critic(z)).mean(), {})

    def phases(self, model: BaseVAE) -> list[Phase]:
        options, betas = self.options, self.options.betas()
        encoder, critic = encoder_parameters(model), trainable(self.critic)
        return [
            Phase("reconstruction", trainable(model), self),
            Phase("critic", critic, self.tell_apart, options.critic_lr_factor, betas),
            Phase("encoder", encoder, self.fit_in, options.encoder_lr_factor, betas),
        ]
