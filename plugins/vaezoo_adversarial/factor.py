"""The objective of FactorVAE (Kim & Mnih 2018): latents that are independent of one another."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaezoo import BaseLoss, BaseVAE, Batch, DataSpec, LossOutput, Phase, StepContext
from vaezoo.distributed import all_gather, local_chunk
from vaezoo.models.distributions import kl_divergence
from vaezoo.nn.batch_norm import freeze_bn_stats

from .critics import DenseCritic, cross_entropy
from .directions import trainable
from .options import FactorOptions


class FactorLoss(BaseLoss):
    """distortion + rate + gamma · TC, in nats per example (Kim & Mnih 2018, equation 2).

    TC = KL(q(z) ‖ ∏ q(z_j)) is the total correlation of the aggregate posterior. A critic that
    tells latents from permuted ones (algorithm 1) estimates it: its log-odds are
    log q(z) − log ∏ q(z_j) where it is optimal, and TC is their mean over q(z) (equation 3).

    Two phases, as in algorithm 2: `train`, the model's; `critic`, which sees latents drawn anew
    and detached. They are drawn for the images of the same batch, where the paper takes another.
    """

    options: FactorOptions

    def __init__(self, options: FactorOptions, model: BaseVAE, data: DataSpec) -> None:
        super().__init__(options, model, data)
        self.critic = DenseCritic(math.prod(model.latent_shape), options.critic_hidden)

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        posterior, z, prior, likelihood = model(batch.x, batch.y)
        distortion = -likelihood.log_prob(batch.x)
        rate = kl_divergence(posterior, prior, z)
        tc = self.critic(z)
        objective = (distortion + rate + self.options.gamma * tc).mean()
        elbo = -distortion - rate
        terms = {"elbo": elbo, "rate": rate, "distortion": distortion, "total_correlation": tc}
        return LossOutput(objective, terms)

    def tell_apart(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        """The critic's objective: half of its cross-entropy, log 2 at chance."""
        with torch.no_grad(), freeze_bn_stats(model):
            z = model.encode(batch.x, model.labels(batch.y)).rsample()
        joint, product = self.critic(z), self.critic(permute_dimensions(z))
        return LossOutput(0.5 * cross_entropy(joint, product), {})

    def phases(self, model: BaseVAE) -> list[Phase]:
        factor, betas = self.options.critic_lr_factor, self.options.betas()
        return [
            Phase("train", trainable(model), self),
            Phase("critic", trainable(self.critic), self.tell_apart, factor, betas),
        ]


def permute_dimensions(z: Tensor) -> Tensor:
    """Each latent dimension permuted over the batch, independently of the others.

    Every dimension keeps its marginal, and nothing else is kept: samples of ∏ q(z_j) out of
    samples of q(z) (Kim & Mnih 2018, algorithm 1). z: [batch, *latent_shape], the part of it that
    this process has; the permutation goes over all parts.
    """
    flat = z.flatten(1)
    order = all_gather(torch.rand_like(flat)).argsort(0)
    return local_chunk(all_gather(flat).gather(0, order)).view_as(z)
