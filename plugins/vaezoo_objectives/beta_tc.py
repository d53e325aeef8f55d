"""beta-TCVAE: the KL in three parts, each with a weight of its own."""

from __future__ import annotations

from vaezoo import BaseLoss, BaseVAE, Batch, LossOutput, StepContext
from vaezoo.distributed import all_gather
from vaezoo.losses.elbo import elbo_terms

from .aggregate import decompose, gather_posteriors, importance_weights, pairwise_log_prob
from .options import BetaTcOptions


class BetaTcLoss(BaseLoss):
    """distortion + alpha · mutual information + beta · total correlation + gamma · dimension KL.

    Chen et al. 2018, equation 4, in nats per example. The three parts add up to the KL in
    expectation; here the KL itself is in closed form, and the weights add what they differ from 1:
    the same mean with less noise, and the ELBO exactly where all are 1.

    The parts are estimates of a batch about the aggregate posterior of all N training examples:
    they depend on its size, and a batch of one sees no correlation at all.
    """

    options: BetaTcOptions

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        output = model(batch.x, batch.y)
        terms = elbo_terms(output, batch.x)
        # The aggregate posterior is that of the whole batch, wherever its examples are.
        z = all_gather(output.z)
        parts = decompose(
            pairwise_log_prob(gather_posteriors(output.posterior), z),
            importance_weights(self.options.estimator, len(z), context.num_examples),
            all_gather(output.prior.log_prob(output.z)),
        )
        weighed = (
            (self.options.alpha - 1) * parts.mutual_information
            + (self.options.beta - 1) * parts.total_correlation
            + (self.options.gamma - 1) * parts.dimension_kl
        )
        objective = (terms["distortion"] + terms["rate"]).mean() + weighed.mean()
        return LossOutput(objective, {**terms, **parts._asdict()})
