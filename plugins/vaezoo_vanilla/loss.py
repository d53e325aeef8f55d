"""The negative ELBO with a weight on the KL divergence: the loss of most models."""

from __future__ import annotations

from torch import Tensor

from vaezoo import BaseLoss, BaseVAE, Batch, LossOutput, StepContext
from vaezoo.losses.elbo import elbo_terms

from .plugin import ELBOOptions


class ELBOLoss(BaseLoss):
    """distortion + beta · rate, in nats per example, averaged over the batch.

    At beta = 1 this is the negative ELBO (Kingma & Welling 2013, equation 3); other values are the
    beta-VAE (Higgins et al. 2017, equation 4). Both terms are sums over an example's values and
    latents, so beta means the same at any image size and any batch size.
    """

    options: ELBOOptions

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        terms = elbo_terms(model(batch.x, batch.y), batch.x)
        loss = terms["distortion"] + self.beta(context) * terms["rate"]
        return LossOutput(loss.mean(), terms)

    def beta(self, context: StepContext) -> float | Tensor:
        """The weight at this step: linear from 0 during the warm-up, then constant."""
        steps = self.options.warmup * context.total_steps
        if steps < 1:
            return self.options.beta
        return self.options.beta * ((context.global_step + 1) / steps).clamp(max=1.0)
