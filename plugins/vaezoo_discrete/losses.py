"""The losses of models whose latent is a grid of codes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaezoo import BaseLoss, BaseVAE, Batch, DataSpec, LossOutput, StepContext
from vaezoo.distributed import all_gather
from vaezoo.losses.elbo import elbo_terms

from .distributions import CodePosterior, SoftPosterior
from .options import VQLossOptions
from .quantizer import Quantizer


class CodesLoss(BaseLoss):
    """The negative ELBO, distortion + rate, in nats per example, and the use of the codebook.

    rate: -log p(indices). While the prior is uniform it is the constant positions · log(num_codes):
    Mentzer et al. (2023) train on the distortion alone. perplexity and usage: see `code_usage`.
    Where the latents are mixtures of codes there is no rate, and the loss is the distortion.
    """

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        output = model(batch.x, batch.y)
        posterior = output.posterior
        if isinstance(posterior, SoftPosterior):
            distortion = -output.likelihood.log_prob(batch.x)
            loss, terms = distortion.mean(), {"distortion": distortion}
        else:
            terms = elbo_terms(output, batch.x)
            loss = -terms["elbo"].mean()
        return LossOutput(loss, {**terms, **code_terms(posterior)})


class VQLoss(CodesLoss):
    """The negative ELBO + |sg[features] - codes|² + commitment · |features - sg[codes]|².

    van den Oord et al. (2017), equation 3. Each distance is a sum over an example's grid, averaged
    over the batch. The second term trains the codebook; with moving averages it is absent. A
    bottleneck without learned codes has neither term.

    A bottleneck with soft assignments adds  entropy_weight · (entropy - diversity · batch_entropy):
    sure assignments of each position, and even use of all codes (Yu et al. 2023, equation 5).
    The term `index` of the bottleneck `ibq` has the weight 1.
    """

    options: VQLossOptions

    def __init__(self, options: VQLossOptions, model: BaseVAE, data: DataSpec) -> None:
        super().__init__(options, model, data)
        if batch_statistics(model):
            self.no_accumulate_reason = "the entropy of codes is that of a whole batch"

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        loss, terms = super().forward(model, batch, context)
        return LossOutput(loss + quantizer_loss(self.options, terms), terms)


def quantizer_loss(options: VQLossOptions, terms: Mapping[str, Tensor]) -> Tensor | float:
    """The weighted sum of the terms of a quantizer, those of `VQLoss`: 0-dim, or 0.0 without any.

    terms: by name, [batch] or 0-dim; others are left out.
    """
    weights = {
        "commitment": options.commitment,
        "codebook": 1.0,
        "index": 1.0,
        "entropy": options.entropy_weight,
        "batch_entropy": -options.entropy_weight * options.diversity,
    }
    parts = [weight * terms[name].mean() for name, weight in weights.items() if name in terms]
    return torch.stack(parts).sum() if parts else 0.0


def batch_statistics(model: BaseVAE) -> bool:
    """Whether a term of the model's quantizer depends on a batch as a whole."""
    quantizer = getattr(getattr(model, "bottleneck", None), "quantizer", None)
    return isinstance(quantizer, Quantizer) and quantizer.batch_statistics


def code_terms(posterior: Distribution) -> dict[str, Tensor]:
    """`perplexity`, `usage` and the terms of the quantizer; nothing if the latents are no codes."""
    if isinstance(posterior, SoftPosterior):
        indices, num_codes = posterior.assignments, posterior.codebook_size
    elif isinstance(posterior, CodePosterior):
        indices, num_codes = posterior.indices, posterior.num_codes
    else:
        return {}
    perplexity, usage = code_usage(
        all_gather(indices), num_codes, posterior.codebooks, posterior.sections
    )
    return {"perplexity": perplexity, "usage": usage, **posterior.losses}


def code_usage(
    indices: Tensor, num_codes: int, codebooks: int = 1, sections: tuple[int, ...] = ()
) -> tuple[Tensor, Tensor]:
    """Perplexity of the indices, and the fraction of the codebook that occurs: 0-dim each.

    Perplexity is exp(entropy) of their frequencies: 1 if all are the same, `num_codes` if all codes
    occur equally often. indices: int64, any shape; of several codebooks [batch, codebooks, ...], or
    [batch, positions] with the numbers of positions of each in `sections`: both numbers are then
    means over the codebooks.
    """
    if sections:
        rows = [*indices.split(sections, 1)]
    else:
        rows = [*indices.unbind(1)] if codebooks > 1 else [indices]
    found = []
    for row in rows:
        # The sum of integers does not depend on the order: a GPU gives the same counts each time.
        counts = torch.zeros(num_codes, dtype=torch.int64, device=row.device)
        counts = counts.scatter_add_(0, row.flatten(), torch.ones_like(row.flatten()))
        perplexity = torch.special.entr(counts / row.numel()).sum().exp()
        found.append(torch.stack([perplexity, (counts > 0).float().mean()]))
    perplexity, usage = torch.stack(found).mean(0)
    return perplexity, usage
