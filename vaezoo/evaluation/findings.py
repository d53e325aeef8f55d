"""What is wrong with a trained model: findings, each with its number and what to try."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from vaezoo.evaluation.evaluate import Evaluation
from vaezoo.evaluation.metric import EvalContext
from vaezoo.models.base import UNFITTED_PRIOR
from vaezoo.models.distributions import diagonal_normal, sample_prior
from vaezoo.runtime.device import evaluation_mode, seeded

MIN_RATE = 1.0
"""Nats per example: below, the latents hold less than two bits, and hardly differ."""
MAX_PRIOR_KL = 1.0
"""Nats per latent from the aggregate posterior to the prior; trained models have less than 0.3."""
MIN_CODE_USE = 0.02
"""The fraction of codes that held-out examples use at least."""
_EXAMPLES = 1000


@dataclass(frozen=True)
class Finding:
    """kind: a word for programs. value: its number. message: one line for the user, with it."""

    kind: str
    value: float | None
    message: str


def find_problems(context: EvalContext, evaluation: Evaluation) -> list[Finding]:
    """The findings about a model, from its evaluation and up to 1,000 examples of the split."""
    found, r2, rate = [], evaluation.reconstruction_r2, evaluation.rate
    if rate is not None and rate < MIN_RATE and (r2 is None or r2 < 0.5):
        collapsed = [row["collapsed"] for row in evaluation.latents]
        of_all = (
            f", and {sum(collapsed)} of {len(collapsed)} are not used" if any(collapsed) else ""
        )
        message = f"posterior collapse: the latents hold {rate:.2g} nats per example{of_all}: "
        message += "give the rate less weight (a smaller --beta), or a smaller --lr"
        found.append(Finding("posterior_collapse", rate, message))
    elif r2 is not None and r2 < 0:
        message = f"reconstructions are worse than the mean of the data (R² {r2:.2f}): "
        found.append(Finding("poor_reconstruction", r2, message + "train longer, or lower --lr"))
    if not context.model.prior_is_fitted:
        found.append(Finding("unfitted_prior", None, UNFITTED_PRIOR))
    with evaluation_mode(context.model), seeded(context.seed, context.device), torch.no_grad():
        z, prior, codes = _latents(context)
    if z is not None and prior is not None:
        kl = gaussian_kl(z, prior)
        if kl > MAX_PRIOR_KL * z.shape[1]:
            message = f"the prior does not match the latents: about {kl:,.0f} nats lie between the "
            message += "aggregate posterior and the prior, so that samples are poor: give the rate "
            message += (
                "more weight (a larger --beta), or fit a sampler to the latents (`vaezoo fit`)"
            )
            found.append(Finding("prior_mismatch", kl, message))
    if codes is not None and codes < MIN_CODE_USE:
        message = f"the codebook collapsed: {codes:.1%} of the codes are used: try a smaller --lr"
        found.append(Finding("codebook_collapse", codes, message + ", or fewer codes"))
    return found


def _latents(context: EvalContext) -> tuple[Tensor | None, Tensor | None, float | None]:
    """Samples of the posteriors and of the prior, [examples, latents]; the fraction of codes used.

    None where the model has no continuous latents with a density, or no codes.
    """
    posteriors, priors, used, total = [], [], [], 0
    for batch in context.batches.sequential():
        y = context.model.labels(batch.y)
        posterior = context.model.encode(batch.x, y)
        indices: Tensor | None = getattr(posterior, "indices", None)
        if indices is not None:
            size, books = getattr(posterior, "num_codes", 0), getattr(posterior, "codebooks", 1)
            # [batch, codebooks, ...] or [batch, positions]: each codebook has codes of its own.
            parts = getattr(posterior, "sections", ()) or [indices.shape[1] // books] * books
            each = enumerate(indices.split(parts, 1))
            used.append(torch.cat([part.unique() + size * book for book, part in each]))
            total = size * len(parts)
        if context.has("continuous") and context.has("density"):
            posteriors.append(posterior.rsample().flatten(1).double())
            priors.append(
                sample_prior(context.model.sampling_prior(y), len(batch.x)).flatten(1).double()
            )
        if (len(used) + len(posteriors)) * context.batches.batch_size >= _EXAMPLES:
            break
    codes = len(torch.cat(used).unique()) / total if total else None
    if not posteriors:
        return None, None, codes
    return torch.cat(posteriors), torch.cat(priors), codes


def gaussian_kl(z: Tensor, prior: Tensor) -> float:
    """Nats between diagonal Gaussians with the moments of two sets of samples, [n, latents]."""
    if min(len(z), len(prior)) < 2:
        return 0.0
    q, p = (diagonal_normal(x.mean(0), x.var(0).clamp(min=1e-12).sqrt()) for x in (z, prior))
    return float(kl_divergence(q, p))
