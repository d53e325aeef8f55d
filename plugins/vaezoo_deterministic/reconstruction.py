"""The loss of an autoencoder: the distortion alone."""

from __future__ import annotations

from vaezoo import BaseLoss, BaseVAE, Batch, LossOutput, StepContext


class ReconstructionLoss(BaseLoss):
    """-log p(x|z) in nats per example, without a term for z.

    Under a Gaussian likelihood of a fixed scale s that is  ‖x − x̂‖² / (2 s²)  and a constant: the
    mean squared error (Hinton & Salakhutdinov 2006), in nats.
    Under a Bernoulli likelihood it is the cross-entropy.
    """

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        distortion = -model(batch.x, batch.y).likelihood.log_prob(batch.x)
        return LossOutput(distortion.mean(), {"distortion": distortion})
