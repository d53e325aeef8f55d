"""The negative ELBO with a weight on the KL divergence: the loss of most models."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Distribution, Independent
from torch.distributions.kl import kl_divergence

from vaezoo import BaseLoss, BaseVAE, Batch, DataSpec, LossOutput, StepContext
from vaezoo.distributed import all_gather
from vaezoo.losses.elbo import elbo_terms

from .options import ELBOOptions


class ELBOLoss(BaseLoss):
    """distortion + beta · rate, in nats per example, averaged over the batch.

    At beta = 1 this is the negative ELBO (Kingma & Welling 2013, equation 3); other values are the
    beta-VAE (Higgins et al. 2017, equation 4). Both terms are sums over an example's values and
    latents, so beta means the same at any image size and any batch size.

    With free bits λ the rate in the loss is Σ_j max(λ, KL_j), where KL_j is the mean over the batch
    of the KL of latent j, or of channel j of a grid (Kingma et al. 2016, equation 15). Where the KL
    has no such parts, it is max(λ, mean rate). The terms stay the true ones.
    """

    options: ELBOOptions

    def __init__(self, options: ELBOOptions, model: BaseVAE, data: DataSpec) -> None:
        super().__init__(options, model, data)
        if options.free_bits:
            self.no_accumulate_reason = "--free-bits are of the mean KL of a batch"

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        output = model(batch.x, batch.y)
        terms = elbo_terms(output, batch.x)
        beta, free_bits = self.beta(context), self.options.free_bits
        if free_bits:
            parts = kl_parts(output.posterior, output.prior)
            parts = terms["rate"].unsqueeze(1) if parts is None else parts
            rate = all_gather(parts).mean(0).clamp(min=free_bits).sum()
            return LossOutput(terms["distortion"].mean() + beta * rate, terms)
        loss = terms["distortion"] + beta * terms["rate"]
        return LossOutput(loss.mean(), terms)

    def beta(self, context: StepContext) -> float | Tensor:
        """The weight at this step: linear from 0 during the warm-up, then constant."""
        steps = self.options.warmup * context.total_steps
        if steps < 1:
            return self.options.beta
        return self.options.beta * ((context.global_step + 1) / steps).clamp(max=1.0)


def kl_parts(posterior: Distribution, prior: Distribution) -> Tensor | None:
    """The KL of each latent dimension, or of each channel of a grid: [batch, channels].

    None unless both distributions have independent latents and their KL is known in closed form.
    """
    if not (isinstance(posterior, Independent) and isinstance(prior, Independent)):
        return None
    dims = posterior.reinterpreted_batch_ndims
    if posterior.event_shape != prior.event_shape or dims != prior.reinterpreted_batch_ndims:
        return None
    try:
        parts = kl_divergence(posterior.base_dist, prior.base_dist)
    except NotImplementedError:
        return None
    return parts.flatten(2).sum(2) if dims > 1 else parts
