"""The evidence lower bound, its terms, and a weight on its KL."""

from __future__ import annotations

from torch import Tensor

from vaezoo.data.base import Batch
from vaezoo.data.spec import DataSpec
from vaezoo.losses.base import BaseLoss, LossOutput, StepContext
from vaezoo.losses.options import ElboOptions
from vaezoo.models.base import BaseVAE, VAEOutput
from vaezoo.models.distributions import kl_divergence


def elbo_terms(output: VAEOutput, x: Tensor) -> dict[str, Tensor]:
    """`elbo`, `rate` and `distortion` of a batch, in nats per example: [batch] each.

    distortion: -E_q log p(x|z), by one sample. rate: KL(q(z|x) ‖ p(z)). elbo: -(rate + distortion)
    (Kingma & Welling 2013, equation 3), whatever weights an objective puts on the two.
    """
    posterior, z, prior, likelihood = output
    distortion: Tensor = -likelihood.log_prob(x)
    rate = kl_divergence(posterior, prior, z)
    return {"elbo": -distortion - rate, "rate": rate, "distortion": distortion}


class ElboLoss(BaseLoss):
    """distortion + beta · rate, in nats per example, averaged over the batch.

    At beta = 1 this is the negative ELBO (Kingma & Welling 2013, equation 3); other values are the
    beta-VAE (Higgins et al. 2017, equation 4). Both terms are sums over an example's values and
    latents, so beta means the same at any image size and any batch size.
    """

    options: ElboOptions

    def __init__(self, options: ElboOptions, model: BaseVAE, data: DataSpec) -> None:
        super().__init__(options, model, data)

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        terms = elbo_terms(model(batch.x, batch.y), batch.x)
        objective = terms["distortion"] + self.beta(context) * terms["rate"]
        return LossOutput(objective.mean(), terms)

    def beta(self, context: StepContext) -> float | Tensor:
        """The weight at this step: it rises linearly from 0 during the warm-up, then stays."""
        steps = self.options.warmup * context.total_steps
        if steps < 1:
            return self.options.beta
        return self.options.beta * ((context.global_step + 1) / steps).clamp(max=1.0)
