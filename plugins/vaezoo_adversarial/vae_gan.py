"""The objective of a VAE-GAN (Larsen et al. 2015): similarity as a critic sees it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vaezoo import BaseLoss, BaseVAE, Batch, DataSpec, LossOutput, Phase, StepContext
from vaezoo.errors import DataError
from vaezoo.models.distributions import kl_divergence, sample_prior
from vaezoo.nn.batch_norm import freeze_bn_stats

from .critics import ImageCritic, cross_entropy
from .directions import decoder_parameters, encoder_parameters, trainable
from .options import VaeGanOptions


class VaeGanLoss(BaseLoss):
    """Three phases with an objective each (Larsen et al. 2015, algorithm 1).

    `encoder` minimises  rate + feature distortion;
    `decoder` minimises  gamma · feature distortion − cross-entropy of the critic;
    `critic`  minimises  its cross-entropy on images, reconstructions and samples of the prior.

    The feature distortion is that of a unit Gaussian around the critic's features of the
    reconstruction (section 2.3), ½ ‖features(x) − features(x̃)‖², in nats up to a constant. It takes
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
        # The pixels' likelihood takes no part but by its mean: a scale that it could learn stays.
        model.likelihood.requires_grad_(False)
        self.critic = ImageCritic(data.shape, options.critic_hidden, options.critic_features)

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        """The encoder's objective."""
        with freeze_bn_stats(model.get_submodule("decoder"), self.critic):
            posterior, z, prior, likelihood = model(batch.x, batch.y)
            _, (wanted, features) = self._judge(batch.x, likelihood.mean)
        rate = kl_divergence(posterior, prior, z)
        distortion = feature_distortion(wanted, features)
        terms = {"rate": rate, "feature_distortion": distortion}
        return LossOutput((rate + distortion).mean(), terms)

    def reconstruct_and_fool(
        self, model: BaseVAE, batch: Batch, context: StepContext
    ) -> LossOutput:
        """The decoder's objective."""
        reconstruction, sample = self._decode(model, batch)
        with freeze_bn_stats(self.critic):
            odds, (wanted, features, _) = self._judge(batch.x, reconstruction, sample)
        distortion = feature_distortion(wanted, features).mean()
        if self.options.fooling == "minimax":
            fooled = -cross_entropy(*odds)
        else:
            fooled = torch.stack([F.softplus(-false).mean() for false in odds[1:]]).sum()
        return LossOutput(self.options.gamma * distortion + fooled, {})

    def tell_apart(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        """The critic's objective: 3 log 2 at chance."""
        with torch.no_grad(), freeze_bn_stats(model):
            reconstruction, sample = self._decode(model, batch)
        odds, _ = self._judge(batch.x, reconstruction, sample)
        return LossOutput(cross_entropy(*odds), {})

    def phases(self, model: BaseVAE) -> list[Phase]:
        rate, betas = self.options.lr_scale, self.options.betas()
        critics = rate * self.options.critic_lr_factor
        return [
            Phase("encoder", encoder_parameters(model), self, rate),
            Phase("decoder", decoder_parameters(model), self.reconstruct_and_fool, rate, betas),
            Phase("critic", trainable(self.critic), self.tell_apart, critics, betas),
        ]

    def _judge(self, *images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The critic's log-odds, and its features, of each batch of images.

        All of them in one batch, so that batch norm measures them by the same rule.
        """
        odds, features = self.critic(torch.cat(images))
        return list(odds.chunk(len(images))), list(features.chunk(len(images)))

    def _decode(self, model: BaseVAE, batch: Batch) -> tuple[Tensor, Tensor]:
        """Reconstructions, and as many samples of the prior.

        Decoded in one batch: batch norm that measured each by itself would show the critic other
        samples than those that the finished model makes.
        """
        y = model.labels(batch.y)
        with torch.no_grad(), freeze_bn_stats(model):
            z = model.encode(batch.x, y).rsample()
            imagined = sample_prior(model.prior(y), len(batch.x))
        both = model.decode(torch.cat([z, imagined]), None if y is None else torch.cat([y, y])).mean
        reconstruction, sample = both.chunk(2)
        return reconstruction, sample


def feature_distortion(wanted: Tensor, features: Tensor) -> Tensor:
    """-log N(wanted; features, 1) without its constant, in nats: [batch]. Both: [batch, n]."""
    return 0.5 * (wanted - features).square().sum(1)
