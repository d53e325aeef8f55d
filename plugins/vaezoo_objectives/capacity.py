"""The loss of the beta-VAE with controlled capacity: the rate follows a rising target."""

from __future__ import annotations

from torch import Tensor

from vaezoo import BaseLoss, BaseVAE, Batch, LossOutput, StepContext
from vaezoo.distributed import all_gather
from vaezoo.losses.elbo import elbo_terms

from .options import CapacityOptions


class CapacityLoss(BaseLoss):
    """distortion + gamma · |rate - C|, with C rising linearly from 0 to the capacity in nats.

    Burgess et al. 2018, equation 8. The rate of a single example may differ from C: the penalty is
    on the mean of the batch.
    """

    options: CapacityOptions
    no_accumulate_reason = "the penalty is on the mean rate of a batch"

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        terms = elbo_terms(model(batch.x, batch.y), batch.x)
        terms["capacity"] = self.capacity(context)
        gap = (all_gather(terms["rate"]).mean() - terms["capacity"]).abs()
        return LossOutput(terms["distortion"].mean() + self.options.gamma * gap, terms)

    def capacity(self, context: StepContext) -> Tensor:
        """C at this step, 0-dim, in nats; constant in evaluation, as the step is."""
        steps = max(1.0, self.options.rise * context.total_steps)
        return self.options.capacity * ((context.global_step + 1) / steps).clamp(max=1.0)
