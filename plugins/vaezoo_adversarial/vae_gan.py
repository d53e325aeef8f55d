"""The objective of a VAE-GAN (Larsen et al. 2015): similarity as a critic sees it."""

from __future__ import annotations

import torch
from torch import Tensor

from vaezoo import BaseLoss, BaseVAE, Batch, Context, DataSpec, LossOutput, Phase
from vaezoo.distributions import draw, kl_divergence
from vaezoo.errors import DataError
from vaezoo.nn import borrowed

from .critics import ImageCritic, cross_entropy
from .directions import decoder_parameters, encoder_parameters, trainable
from .options import VaeGanOptions


class VaeGanLoss(BaseLoss):
    """Three phases with an objective each (Larsen et al. 2015, algorithm 1).

    `encoder` minimises  rate + feature distortion;
    `decoder` minimises  gamma · feature distortion − cross-entropy of the critic;
    `critic`  minimises  its cross-entropy on images, reconstructions and samples of the prior.

    The feature distortion is that of a unit Gaussian around the critic's features of the
    reconstruction (equation 7), ½ ‖features(x) − features(x̃)‖², in nats up to a constant. It takes
    the place of the pixels' likelihood, whose mean alone is used: there is no density of images
    here, hence no ELBO. The critic's features move during training, and with them what a nat of
    this distortion is worth: values of one run at different times do not compare.
    """

    options: VaeGanOptions

    def __init__(self, options: VaeGanOptions, model: BaseVAE, data: DataSpec) -> None:
        super().__init__(options, model, data)
        if not data.is_image:
            raise DataError(
                f"loss vae_gan compares images, and this data is vectors of {data.shape[0]} values"
            )
        self.critic = ImageCritic(data.shape, options.critic_hidden, options.critic_features)

    def forward(self, model: BaseVAE, batch: Batch, context: Context) -> LossOutput:
        """The encoder's objective."""
        with borrowed(model.get_submodule("decoder"), self.critic):
            posterior, z, prior, likelihood = model(batch.x, batch.y)
            distortion = feature_distortion(
                self._features(batch.x), self.critic(likelihood.mean)[1]
            )
        rate = kl_divergence(posterior, prior, z)
        terms = {"rate": rate, "feature_distortion": distortion}
        return LossOutput((rate + distortion).mean(), terms)

    def reconstruct_and_fool(self, model: BaseVAE, batch: Batch, context: Context) -> LossOutput:
        """The decoder's objective."""
        z, imagined = self._latents(model, batch)
        y = model.labels(batch.y)
        with borrowed(self.critic):
            with torch.no_grad():
                real, features = self.critic(batch.x)
            reconstruction, its_features = self.critic(model.decode(z, y).mean)
            sample, _ = self.critic(model.decode(imagined, y).mean)
        distortion = feature_distortion(features, its_features).mean()
        fooled = -cross_entropy(real, reconstruction, sample)
        return LossOutput(self.options.gamma * distortion + fooled, {})

    def tell_apart(self, model: BaseVAE, batch: Batch, context: Context) -> LossOutput:
        """The critic's objective: 3 log 2 at chance."""
        z, imagined = self._latents(model, batch)
        y = model.labels(batch.y)
        with torch.no_grad(), borrowed(model):
            reconstruction, sample = model.decode(z, y).mean, model.decode(imagined, y).mean
        odds = [self.critic(images)[0] for images in (batch.x, reconstruction, sample)]
        return LossOutput(cross_entropy(*odds), {})

    def phases(self, model: BaseVAE) -> list[Phase]:
        factor, betas = self.options.critic_lr_factor, self.options.critic_betas
        return [
            Phase("encoder", encoder_parameters(model), self),
            Phase("decoder", decoder_parameters(model), self.reconstruct_and_fool, betas=betas),
            Phase("critic", trainable(self.critic), self.tell_apart, factor, betas),
        ]

    @torch.no_grad()
    def _features(self, x: Tensor) -> Tensor:
        """The critic's features of images that no gradient flows to: [batch, n]."""
        features: Tensor = self.critic(x)[1]
        return features

    @torch.no_grad()
    def _latents(self, model: BaseVAE, batch: Batch) -> tuple[Tensor, Tensor]:
        """Latents of the images, and as many of the prior."""
        y = model.labels(batch.y)
        with borrowed(model):
            z = model.encode(batch.x, y).rsample()
        return z, draw(model.prior(y), len(batch.x))


def feature_distortion(wanted: Tensor, features: Tensor) -> Tensor:
    """-log N(wanted; features, 1) without its constant, in nats: [batch]. Both: [batch, n]."""
    return 0.5 * (wanted - features).square().sum(1)
