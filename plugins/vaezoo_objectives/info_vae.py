"""InfoVAE, and with it the MMD-VAE: the aggregate posterior is held to the prior as well."""

from __future__ import annotations

from vaezoo import BaseLoss, BaseVAE, Batch, LossOutput, StepContext
from vaezoo.losses.elbo import elbo_terms

from .mmd import mmd_to_prior
from .options import InfoVaeOptions


class InfoVaeLoss(BaseLoss):
    """distortion + (1 - alpha) · rate + (alpha + lambda - 1) · MMD(q(z), p(z)).

    Zhao et al. 2017, equation 6, with the MMD for the divergence of the aggregate posterior; in
    nats per example but for the MMD, which has no unit and is the batch's. alpha = 0, lambda = 1
    is the ELBO; alpha = 1 has no KL, and is the MMD-VAE.
    """

    options: InfoVaeOptions

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        output = model(batch.x, batch.y)
        terms = elbo_terms(output, batch.x)
        terms["mmd"] = mmd_to_prior(output.z, output.prior, self.options)
        alpha = self.options.alpha
        of_examples = (terms["distortion"] + (1 - alpha) * terms["rate"]).mean()
        objective = of_examples + (alpha + self.options.lambda_mmd - 1) * terms["mmd"]
        return LossOutput(objective, terms)
