"""The loss of the adversarial autoencoder (Makhzani et al. 2015)."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from vaezoo import BaseLoss, BaseVAE, Batch, DataSpec, LossOutput, Phase, StepContext
from vaezoo.models.distributions import sample_prior
from vaezoo.nn.batch_norm import freeze_bn_stats

from .discriminators import MLPDiscriminator, cross_entropy
from .options import AAEOptions
from .parameters import encoder_parameters, trainable


class AAELoss(BaseLoss):
    """The distortion, with a discriminator in place of the rate (Makhzani et al. 2015, section 2).

    Three phases: `reconstruction` updates the whole autoencoder; `discriminator` learns to classify
    samples of the prior as real and latents as fake; `encoder` makes latents that are classified as
    real, by the non-saturating loss -log D (Goodfellow et al. 2014, section 3). At the optimum the
    aggregate posterior equals the prior, whatever each q(z|x) is.

    It works with any posterior that has `rsample`. With a Delta (the model `aae`) there is no ELBO.
    With a Gaussian (`vaezoo train vanilla --loss aae`) there is one; it is a valid bound, but this
    loss does not maximise it.
    """

    options: AAEOptions

    def __init__(self, options: AAEOptions, model: BaseVAE, data: DataSpec) -> None:
        super().__init__(options, model, data)
        features = math.prod(model.latent_shape)
        self.discriminator = MLPDiscriminator(features, options.discriminator_hidden)

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        distortion = -model(batch.x, batch.y).likelihood.log_prob(batch.x)
        return LossOutput(distortion.mean(), {"distortion": distortion})

    def discriminator_loss(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        """The cross-entropy of the discriminator: 2 log 2 at chance."""
        y = model.labels(batch.y)
        with torch.no_grad(), freeze_bn_stats(model):
            z = model.encode(batch.x, y).rsample()
            real = sample_prior(model.prior(y), len(batch.x))
        return LossOutput(cross_entropy(self.discriminator(real), self.discriminator(z)), {})

    def generator_loss(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        """The encoder's loss against the discriminator, -log D(z): log 2 at chance."""
        z = model.encode(batch.x, model.labels(batch.y)).rsample()
        return LossOutput(F.softplus(-self.discriminator(z)).mean(), {})

    def phases(self, model: BaseVAE) -> list[Phase]:
        options, betas = self.options, self.options.betas()
        encoder, discriminator = encoder_parameters(model), trainable(self.discriminator)
        lr_scale = options.discriminator_lr_scale
        return [
            Phase("reconstruction", trainable(model), self),
            Phase("discriminator", discriminator, self.discriminator_loss, lr_scale, betas),
            Phase("encoder", encoder, self.generator_loss, options.encoder_lr_scale, betas),
        ]
