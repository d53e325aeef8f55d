"""The loss of the Wasserstein autoencoder with an MMD penalty."""

from __future__ import annotations

from vaezoo import BaseLoss, BaseVAE, Batch, LossOutput, StepContext

from .mmd import mmd_to_prior
from .options import WaeMmdOptions


class WaeMmdLoss(BaseLoss):
    """distortion + lambda · MMD(q(z), p(z)).

    Tolstikhin et al. 2017, equation 4 and algorithm 2. The cost is the distortion in nats per
    example: for a Gaussian likelihood of variance 1/2 the squared error plus a constant. The MMD
    is a statistic of the batch and has no unit. The encoder may be random, as vanilla's, or
    deterministic, as in the paper's experiments.
    """

    options: WaeMmdOptions

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        _, z, prior, likelihood = model(batch.x, batch.y)
        distortion = -likelihood.log_prob(batch.x)
        mmd = mmd_to_prior(z, prior, self.options)
        loss = distortion.mean() + self.options.lambda_mmd * mmd
        return LossOutput(loss, {"distortion": distortion, "mmd": mmd})
