"""DIP-VAE: latents that are uncorrelated over the data, each of variance 1."""

from __future__ import annotations

from torch import Tensor

from vaezoo import BaseLoss, BaseVAE, Batch, LossOutput, StepContext
from vaezoo.distributed import all_gather
from vaezoo.losses.elbo import elbo_terms

from .options import DipVaeOptions


class DipVaeLoss(BaseLoss):
    """-ELBO + lambda_od · sum of Cov_ij², i ≠ j + lambda_d · sum of (Cov_ii - 1)².

    Kumar et al. 2017. Cov is the covariance over the data of the posterior's means (type i,
    equation 6), or of the latents themselves (type ii, equation 7): by the law of total covariance
    that and the mean of the posterior's variances (equation 5).

    The two sums are terms of their own, `covariance_off_diagonal` and `covariance_diagonal`,
    before their weights; they are the batch's, with squares of variances and no nats.
    """

    options: DipVaeOptions

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        output = model(batch.x, batch.y)
        terms = elbo_terms(output, batch.x)
        means = all_gather(output.posterior.mean).flatten(1)
        covariance = covariance_of(means)
        if self.options.dip_type == "ii":
            variance = all_gather(output.posterior.variance).flatten(1)
            covariance = covariance + variance.mean(0).diag()
        variances = covariance.diagonal()
        diagonal = (variances - 1).square().sum()
        off_diagonal = covariance.square().sum() - variances.square().sum()
        objective = (
            -terms["elbo"].mean()
            + self.options.lambda_od * off_diagonal
            + self.options.diagonal_weight() * diagonal
        )
        return LossOutput(
            objective,
            {**terms, "covariance_off_diagonal": off_diagonal, "covariance_diagonal": diagonal},
        )


def covariance_of(values: Tensor) -> Tensor:
    """The covariance over a batch, divided by its size: [batch, n] -> [n, n]; 0 for one example."""
    centred = values - values.mean(0)
    # Not as a matrix product, which autocast takes in half precision.
    return (centred.unsqueeze(2) * centred.unsqueeze(1)).mean(0)
