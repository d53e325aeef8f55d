"""The loss of DIP-VAE: latents that are uncorrelated over the data and have variance 1."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Distribution, Independent

from vaezoo import BaseLoss, BaseVAE, Batch, LossOutput, StepContext
from vaezoo.distributed import all_gather
from vaezoo.errors import OptionError
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
        try:
            covariance = covariance_of(all_gather(output.posterior.mean).flatten(1))
            if self.options.dip_type == "ii":
                covariance = covariance + mean_covariance(output.posterior)
        except NotImplementedError:
            raise OptionError(
                f"--dip-type {self.options.dip_type} needs the posterior's mean"
                + (" and covariance" if self.options.dip_type == "ii" else "")
                + f", and {type(output.posterior).__name__} has no closed form of it: train this "
                "model with another --loss"
            ) from None
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


def mean_covariance(posterior: Distribution) -> Tensor:
    """The mean over the batch of the posteriors' covariances, of all processes: [n, n].

    It is a posterior's `covariance_matrix`, or the variances of independent latents.
    NotImplementedError where the posterior has neither.
    """
    full: Tensor | None = getattr(posterior, "covariance_matrix", None)
    if full is not None:
        return all_gather(full.mean(0, keepdim=True)).mean(0)
    if not isinstance(posterior, Independent):
        raise NotImplementedError
    return all_gather(posterior.variance).flatten(1).mean(0).diag()


def covariance_of(values: Tensor) -> Tensor:
    """The covariance over a batch, divided by its size: [batch, n] -> [n, n]; 0 for one example."""
    centered = values - values.mean(0)
    # Not a matrix product: autocast computes these in half precision.
    return (centered.unsqueeze(2) * centered.unsqueeze(1)).mean(0)
