"""The loss of FactorVAE (Kim & Mnih 2018): independent latent dimensions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaezoo import BaseLoss, BaseVAE, Batch, DataSpec, LossOutput, Phase, StepContext
from vaezoo.distributed import all_gather, local_chunk
from vaezoo.losses.elbo import elbo_terms
from vaezoo.nn.batch_norm import freeze_bn_stats

from .discriminators import MLPDiscriminator, cross_entropy
from .options import FactorVAEOptions
from .parameters import trainable


class FactorVAELoss(BaseLoss):
    """distortion + rate + gamma · TC, in nats per example (Kim & Mnih 2018, equation 2).

    TC = KL(q(z) ‖ ∏ q(z_j)) is the total correlation of the aggregate posterior. A discriminator
    between latents and permuted latents (algorithm 1) estimates it: the optimal logit is
    log q(z) − log ∏ q(z_j), and TC is the mean logit over q(z) (equation 3).

    Two phases, as in algorithm 2: `train` updates the model; `discriminator` updates the
    discriminator on new, detached samples of the latents. The paper takes these from a second
    batch, this loss from the same one.
    """

    options: FactorVAEOptions
    no_accumulate_reason = "latents are permuted over all examples of a batch"

    def __init__(self, options: FactorVAEOptions, model: BaseVAE, data: DataSpec) -> None:
        super().__init__(options, model, data)
        features = math.prod(model.latent_shape)
        self.discriminator = MLPDiscriminator(features, options.discriminator_hidden)

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        output = model(batch.x, batch.y)
        terms = elbo_terms(output, batch.x)
        tc = self.discriminator(output.z)
        loss = (terms["distortion"] + terms["rate"] + self.options.gamma * tc).mean()
        return LossOutput(loss, {**terms, "total_correlation": tc})

    def discriminator_loss(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        """Half of the discriminator's cross-entropy: log 2 at chance."""
        with torch.no_grad(), freeze_bn_stats(model):
            z = model.encode(batch.x, model.labels(batch.y)).rsample()
        joint, product = self.discriminator(z), self.discriminator(permute_dimensions(z))
        return LossOutput(0.5 * cross_entropy(joint, product), {})

    def phases(self, model: BaseVAE) -> list[Phase]:
        lr_scale, betas = self.options.discriminator_lr_scale, self.options.betas()
        discriminator = trainable(self.discriminator)
        return [
            Phase("train", trainable(model), self),
            Phase("discriminator", discriminator, self.discriminator_loss, lr_scale, betas),
        ]


def permute_dimensions(z: Tensor) -> Tensor:
    """Samples of ∏ q(z_j) made from samples of q(z) (Kim & Mnih 2018, algorithm 1).

    Each latent dimension is permuted over the batch, independently of the others. z: this process's
    part of the batch, [batch, *latent_shape]; the permutation runs over all processes' parts.
    """
    flat = z.flatten(1)
    order = all_gather(torch.rand_like(flat)).argsort(0)
    return local_chunk(all_gather(flat).gather(0, order)).view_as(z)
