"""The loss of VAE-GAN (Larsen et al. 2015): distances between features of a discriminator."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vaezoo import BaseLoss, BaseVAE, Batch, DataSpec, LossOutput, Phase, StepContext
from vaezoo.errors import DataError
from vaezoo.models.distributions import kl_divergence, sample_prior
from vaezoo.nn.batch_norm import freeze_bn_stats

from .discriminators import ConvDiscriminator, cross_entropy
from .options import VAEGANOptions
from .parameters import decoder_parameters, encoder_parameters, trainable


class VAEGANLoss(BaseLoss):
    """Three phases with a loss each (Larsen et al. 2015, algorithm 1).

    `encoder` minimises  rate + feature distortion;
    `decoder` minimises  gamma · feature distortion − the discriminator's cross-entropy;
    `discriminator` minimises its cross-entropy on images, reconstructions and prior samples.

    The feature distortion is ½ ‖features(x) − features(x̃)‖²: the negative log-density of a unit
    Gaussian around the discriminator's features of the reconstruction x̃, in nats up to a constant
    (section 2.3). It replaces the likelihood of the pixels, of which only the mean is used. So
    there is no density of images and no ELBO. The features change during training: values of the
    feature distortion at different steps do not compare.
    """

    options: VAEGANOptions

    def __init__(self, options: VAEGANOptions, model: BaseVAE, data: DataSpec) -> None:
        super().__init__(options, model, data)
        if not data.is_image:
            raise DataError(f"loss vae_gan compares images, and this data is {data.describe()}")
        # Only the likelihood's mean is used: a learned scale would get no gradient.
        model.likelihood.requires_grad_(False)
        self.discriminator = ConvDiscriminator(
            data, options.discriminator_hidden, options.discriminator_features
        )
        model.min_batch_size = max(2, model.min_batch_size)  # the discriminator has batch norm

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        """The encoder's loss."""
        with freeze_bn_stats(model.get_submodule("decoder"), self.discriminator):
            posterior, z, prior, likelihood = model(batch.x, batch.y)
            _, (target, features) = self._discriminate(batch.x, likelihood.mean)
        rate = kl_divergence(posterior, prior, z)
        distortion = feature_distortion(target, features)
        terms = {"rate": rate, "feature_distortion": distortion}
        return LossOutput((rate + distortion).mean(), terms)

    def decoder_loss(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        """The decoder's loss: the feature distortion, and the GAN's generator loss."""
        reconstruction, sample = self._decode(model, batch)
        with freeze_bn_stats(self.discriminator):
            logits, (target, features, _) = self._discriminate(batch.x, reconstruction, sample)
        distortion = feature_distortion(target, features).mean()
        if self.options.generator_loss == "minimax":
            generator_loss = -cross_entropy(*logits)
        else:
            generator_loss = torch.stack([F.softplus(-fake).mean() for fake in logits[1:]]).sum()
        return LossOutput(self.options.gamma * distortion + generator_loss, {})

    def discriminator_loss(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        """The discriminator's cross-entropy: 3 log 2 at chance."""
        with torch.no_grad(), freeze_bn_stats(model):
            reconstruction, sample = self._decode(model, batch)
        logits, _ = self._discriminate(batch.x, reconstruction, sample)
        return LossOutput(cross_entropy(*logits), {})

    def phases(self, model: BaseVAE) -> list[Phase]:
        lr_scale, betas = self.options.lr_scale, self.options.betas()
        own_scale = lr_scale * self.options.discriminator_lr_scale
        discriminator = trainable(self.discriminator)
        return [
            Phase("encoder", encoder_parameters(model), self, lr_scale),
            Phase("decoder", decoder_parameters(model), self.decoder_loss, lr_scale, betas),
            Phase("discriminator", discriminator, self.discriminator_loss, own_scale, betas),
        ]

    def _discriminate(self, *images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Logits and features of each batch of images.

        All batches go through the discriminator as one, so batch norm treats them alike.
        """
        logits, features = self.discriminator(torch.cat(images))
        return list(logits.chunk(len(images))), list(features.chunk(len(images)))

    def _decode(self, model: BaseVAE, batch: Batch) -> tuple[Tensor, Tensor]:
        """Reconstructions, and as many samples of the prior.

        Both are decoded as one batch. Batch norm over each alone would give the discriminator
        samples that differ from those of the trained model in evaluation mode.
        """
        y = model.labels(batch.y)
        with torch.no_grad(), freeze_bn_stats(model):
            z = model.encode(batch.x, y).rsample()
            z_prior = sample_prior(model.prior(y), len(batch.x))
        both = model.decode(torch.cat([z, z_prior]), None if y is None else torch.cat([y, y])).mean
        reconstruction, sample = both.chunk(2)
        return reconstruction, sample


def feature_distortion(target: Tensor, features: Tensor) -> Tensor:
    """-log N(target; features, 1) without its constant, in nats: [batch, n] twice -> [batch]."""
    return 0.5 * (target - features).square().sum(1)
