"""The maximum mean discrepancy (MMD, Gretton et al. 2012) of latents, and the losses with it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaezoo import BaseLoss, BaseVAE, Batch, LossOutput, StepContext
from vaezoo.distributed import all_gather
from vaezoo.losses.elbo import elbo_terms
from vaezoo.models.distributions import sample_prior

from .options import InfoVAEOptions, Kernel, MMDOptions, WAEMMDOptions


class InfoVAELoss(BaseLoss):
    """distortion + (1 - alpha) · rate + (alpha + lambda - 1) · MMD(q(z), p(z)).

    Zhao et al. 2017, equation 6, with the MMD as the divergence of the aggregate posterior; in nats
    per example, except for the MMD, which has no unit and is a statistic of the batch. alpha = 0,
    lambda = 1 is the negative ELBO; alpha = 1 has no KL, and is the MMD-VAE.
    """

    options: InfoVAEOptions
    no_accumulate_reason = "the MMD compares all latents of a batch"

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        output = model(batch.x, batch.y)
        terms = elbo_terms(output, batch.x)
        terms["mmd"] = mmd_to_prior(output.z, output.prior, self.options)
        alpha = self.options.alpha
        per_example = (terms["distortion"] + (1 - alpha) * terms["rate"]).mean()
        loss = per_example + (alpha + self.options.lambda_mmd - 1) * terms["mmd"]
        return LossOutput(loss, terms)


class WAEMMDLoss(BaseLoss):
    """distortion + lambda · MMD(q(z), p(z)).

    Tolstikhin et al. 2017, equation 4 and algorithm 2. The cost is the distortion in nats per
    example: for a Gaussian likelihood of variance 1/2 the squared error plus a constant. The MMD
    is a statistic of the batch and has no unit. The encoder may be random, as vanilla's, or
    deterministic, as in the paper's experiments.
    """

    options: WAEMMDOptions
    no_accumulate_reason = "the MMD compares all latents of a batch"

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        _, z, prior, likelihood = model(batch.x, batch.y)
        distortion = -likelihood.log_prob(batch.x)
        mmd = mmd_to_prior(z, prior, self.options)
        loss = distortion.mean() + self.options.lambda_mmd * mmd
        return LossOutput(loss, {"distortion": distortion, "mmd": mmd})


def mmd_to_prior(z: Tensor, prior: Distribution, options: MMDOptions) -> Tensor:
    """The squared MMD between a batch of latents and as many samples of the prior: 0-dim.

    z: [batch, *latent_shape]; with several processes, of the latents of all of them.
    """
    z, samples = all_gather(z), all_gather(sample_prior(prior, len(z)))
    return mmd(z.flatten(1), samples.flatten(1), options.kernel, options.scales)


def mmd(x: Tensor, y: Tensor, kernel: Kernel, scales: tuple[float, ...]) -> Tensor:
    """The unbiased estimate of the squared MMD between two samples: 0-dim, 0 in the mean if equal.

    Gretton et al. 2012, equation 3; Tolstikhin et al. 2017, algorithm 2. x, y: [n, dimensions],
    n ≥ 2; for n = 1 there is no unbiased estimate, and the result is 0.

    The kernel is the sum over `scales` of imq: C / (C + d²), or rbf: exp(-d² / C), where d is the
    distance and C = scale · 2 · dimensions. At scale 1 that is the mean d² of two samples of a
    standard Gaussian, for any number of dimensions.
    """
    if len(x) == 1:
        return torch.zeros_like(x[0, 0])
    within_x = _mean_off_diagonal(_kernel(x, x, kernel, scales))
    within_y = _mean_off_diagonal(_kernel(y, y, kernel, scales))
    return within_x + within_y - 2 * _kernel(x, y, kernel, scales).mean()


def _kernel(x: Tensor, y: Tensor, kernel: Kernel, scales: tuple[float, ...]) -> Tensor:
    """The kernel of every pair: [n, n]."""
    # Not by matrix products: they cancel, and autocast computes them in half precision.
    squared = (x.unsqueeze(1) - y.unsqueeze(0)).square().sum(2)
    widths = [scale * 2 * x.shape[1] for scale in scales]
    if kernel == "imq":
        parts = [width / (width + squared) for width in widths]
    else:
        parts = [torch.exp(-squared / width) for width in widths]
    return torch.stack(parts).sum(0)


def _mean_off_diagonal(pairs: Tensor) -> Tensor:
    """The mean over pairs of two different samples, 0-dim."""
    n = len(pairs)
    return (pairs.sum() - pairs.diagonal().sum()) / (n * (n - 1))
