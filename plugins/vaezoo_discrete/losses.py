"""The losses of models whose latent is a grid of codes."""

from __future__ import annotations

import torch
from torch import Tensor

from vaezoo import BaseLoss, BaseVAE, Batch, LossOutput, StepContext
from vaezoo.distributed import all_gather
from vaezoo.losses.elbo import elbo_terms

from .distributions import CodePosterior
from .options import VQLossOptions


class CodesLoss(BaseLoss):
    """The negative ELBO, distortion + rate, in nats per example, and the use of the codebook.

    rate: -log p(indices). While the prior is uniform it is the constant positions · log(num_codes):
    Mentzer et al. (2023) train on the distortion alone. perplexity and usage: see `code_usage`.
    """

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        output = model(batch.x, batch.y)
        posterior, terms = output.posterior, elbo_terms(output, batch.x)
        assert isinstance(posterior, CodePosterior)
        perplexity, usage = code_usage(all_gather(posterior.indices), posterior.num_codes)
        terms |= {"perplexity": perplexity, "usage": usage, **posterior.losses}
        return LossOutput(-terms["elbo"].mean(), terms)


class VQLoss(CodesLoss):
    """The negative ELBO + |sg[features] - codes|² + commitment · |features - sg[codes]|².

    van den Oord et al. (2017), equation 3. Each distance is a sum over an example's grid, averaged
    over the batch. The second term trains the codebook; with moving averages it is absent. A
    bottleneck without learned codes has neither term.
    """

    options: VQLossOptions

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        loss, terms = super().forward(model, batch, context)
        for term, weight in (("commitment", self.options.commitment), ("codebook", 1.0)):
            if term in terms:
                loss = loss + weight * terms[term].mean()
        return LossOutput(loss, terms)


def code_usage(indices: Tensor, num_codes: int) -> tuple[Tensor, Tensor]:
    """Perplexity of the indices, and the fraction of the codebook that occurs: 0-dim each.

    Perplexity is exp(entropy) of their frequencies: 1 if all are the same, `num_codes` if all codes
    occur equally often. indices: int64, any shape.
    """
    flat = indices.flatten()
    # The sum of integers does not depend on the order, so a GPU gives the same counts each time.
    counts = torch.zeros(num_codes, dtype=torch.int64, device=flat.device)
    counts = counts.scatter_add_(0, flat, torch.ones_like(flat))
    perplexity = torch.special.entr(counts / flat.numel()).sum().exp()
    return perplexity, (counts > 0).float().mean()
