"""The loss of InfoVAE and MMD-VAE: KL, and MMD between aggregate posterior and prior."""

from __future__ import annotations

from vaezoo import BaseLoss, BaseVAE, Batch, LossOutput, StepContext
from vaezoo.losses.elbo import elbo_terms

from .mmd import mmd_to_prior
from .options import InfoVaeOptions


class InfoVaeLoss(BaseLoss):
    """distortion + (1 - alpha) · rate + (alpha + lambda - 1) · MMD(q(z), p(z)).

    Zhao et al. 2017, equation 6, with the MMD as the divergence of the aggregate posterior; in nats
    per example, except for the MMD, which has no unit and is a statistic of the batch. alpha = 0,
    lambda = 1 is the negative ELBO; alpha = 1 has no KL, and is the MMD-VAE.
    """

    options: InfoVaeOptions

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        output = model(batch.x, batch.y)
        terms = elbo_terms(output, batch.x)
        terms["mmd"] = mmd_to_prior(output.z, output.prior, self.options)
        alpha = self.options.alpha
        per_example = (terms["distortion"] + (1 - alpha) * terms["rate"]).mean()
        loss = per_example + (alpha + self.options.lambda_mmd - 1) * terms["mmd"]
        return LossOutput(loss, terms)
