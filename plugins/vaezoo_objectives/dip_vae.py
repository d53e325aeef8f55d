"""The loss of DIP-VAE: latents that are uncorrelated over the data and have variance 1."""

from __future__ import annotations

from torch import Tensor

from vaezoo import BaseLoss, BaseVAE, Batch, LossOutput, StepContext
from vaezoo.distributed import all_gather
from vaezoo.losses.elbo import elbo_terms

from .options import DIPVAEOptions


class DIPVAELoss(BaseLoss):
    """-ELBO + lambda_od · sum of Cov_ij², i ≠ j + lambda_d · sum of (Cov_ii - 1)².

    Kumar et al. 2017. Cov is the covariance over the batch of the posterior's means (type i,
    equation 6), or of the latents (type ii, equation 7): by the law of total covariance the former
    plus the mean of the posterior's variances (equation 5).

    The two sums without their weights are the terms `covariance_off_diagonal` and
    `covariance_diagonal`; they are squares of variances, not nats.
    """

    options: DIPVAEOptions
    no_accumulate_reason = "the covariance is that of all latents of a batch"

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
        loss = (
            -terms["elbo"].mean()
            + self.options.lambda_od * off_diagonal
            + self.options.diagonal_weight() * diagonal
        )
        return LossOutput(
            loss,
            {**terms, "covariance_off_diagonal": off_diagonal, "covariance_diagonal": diagonal},
        )


def covariance_of(values: Tensor) -> Tensor:
    """The covariance over a batch, divided by its size: [batch, n] -> [n, n]; 0 for one example."""
    centered = values - values.mean(0)
    # Not a matrix product: autocast computes these in half precision.
    return (centered.unsqueeze(2) * centered.unsqueeze(1)).mean(0)
