"""The loss of beta-TCVAE: the KL in three weighted parts."""

from __future__ import annotations

from vaezoo import BaseLoss, BaseVAE, Batch, LossOutput, StepContext
from vaezoo.distributed import all_gather
from vaezoo.losses.elbo import elbo_terms

from .aggregate import decompose, gather_posteriors, importance_weights, pairwise_log_prob
from .options import BetaTCOptions


class BetaTCLoss(BaseLoss):
    """distortion + alpha · mutual information + beta · total correlation + gamma · dimension KL.

    Chen et al. 2018, equation 4, in nats per example. The three parts add up to the KL in
    expectation. Here the KL is in closed form, and each part is added with its weight minus 1: the
    same mean with less noise, and exactly the negative ELBO if all weights are 1.

    The parts are estimated from a batch, for the aggregate posterior of all N training examples.
    They depend on the batch size; in a batch of one the total correlation is 0.
    """

    options: BetaTCOptions
    no_accumulate_reason = "the aggregate posterior is estimated from all examples of a batch"

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        output = model(batch.x, batch.y)
        terms = elbo_terms(output, batch.x)
        # The aggregate posterior is that of the whole batch, over all processes.
        z = all_gather(output.z)
        parts = decompose(
            pairwise_log_prob(gather_posteriors(output.posterior), z),
            importance_weights(self.options.estimator, len(z), context.num_examples),
            all_gather(output.prior.log_prob(output.z)),
        )
        weighted = (
            (self.options.alpha - 1) * parts.mutual_information
            + (self.options.beta - 1) * parts.total_correlation
            + (self.options.gamma - 1) * parts.dimension_kl
        )
        loss = (terms["distortion"] + terms["rate"]).mean() + weighted.mean()
        return LossOutput(loss, {**terms, **parts._asdict()})
