"""The objectives of models whose latent is a grid of codes."""

from __future__ import annotations

from torch import Tensor

from vaezoo import BaseLoss, BaseVAE, Batch, DataSpec, LossOutput, StepContext, VAEOutput
from vaezoo.distributed import all_gather
from vaezoo.losses.elbo import elbo_terms

from .codes import CodePosterior, code_usage
from .options import VQLossOptions


class CodesLoss(BaseLoss):
    """The negative ELBO, distortion + rate, and how many of its codes a model uses.

    In nats per example, averaged over the batch. rate: -log p(codes). While the prior is uniform
    that is positions · log(codes), a constant: Mentzer et al. (2023) train by the distortion alone.
    perplexity and usage: of the codes of the batch; see code_usage.
    """

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        return self.measure(model(batch.x, batch.y), batch.x)

    def measure(self, output: VAEOutput, x: Tensor) -> LossOutput:
        """Of what a model says of x."""
        posterior, terms = output.posterior, elbo_terms(output, x)
        assert isinstance(posterior, CodePosterior)
        perplexity, usage = code_usage(all_gather(posterior.codes), posterior.quantiser.size)
        terms |= {"perplexity": perplexity, "usage": usage}
        return LossOutput(-terms["elbo"].mean(), terms)


class VQLoss(CodesLoss):
    """The negative ELBO + |sg[features] - codes|² + beta · |features - sg[codes]|².

    van den Oord et al. (2017), equation 3, each distance a sum over an example's grid, averaged
    over the batch. The second term, which teaches the codebook, is there where the codebook learns
    by gradient; moving averages take its place elsewhere.
    """

    options: VQLossOptions

    def __init__(self, options: VQLossOptions, model: BaseVAE, data: DataSpec) -> None:
        super().__init__(options, model, data)
        self.teaches = getattr(model.options, "codebook", None) == "gradient"

    def measure(self, output: VAEOutput, x: Tensor) -> LossOutput:
        objective, terms = super().measure(output, x)
        posterior = output.posterior
        assert isinstance(posterior, CodePosterior)
        features, embedded = posterior.features, posterior.embedded
        commitment = _distance(features, embedded.detach())
        objective = objective + self.options.commitment * commitment.mean()
        terms = {**terms, "commitment": commitment}
        if self.teaches:
            codebook = _distance(features.detach(), embedded)
            objective = objective + codebook.mean()
            terms["codebook"] = codebook
        return LossOutput(objective, terms)


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared, summed over all but the batch: [batch]."""
    return (a - b).square().flatten(1).sum(1)
