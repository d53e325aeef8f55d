"""The loss of sigma-VAE: the optimal scale of the Gaussian likelihood at every step."""

from __future__ import annotations

import torch
from torch import Tensor

from vaezoo import BaseLoss, BaseVAE, Batch, DataSpec, LossOutput, Options, StepContext
from vaezoo.distributed import all_gather
from vaezoo.errors import OptionError
from vaezoo.losses.elbo import elbo_terms
from vaezoo.models.distributions import IsotropicNormal
from vaezoo.models.likelihoods import SMALLEST_SCALE, GaussianLikelihood

_MIN_STEP_WEIGHT = 0.01
"""The weight of a step in the moving average of the scale, after the first hundred steps."""


class SigmaVAELoss(BaseLoss):
    """distortion at the batch's optimal scale + rate, in nats per example.

    Rybkin et al. 2020, section 3.2, the optimal sigma-VAE: the scale that maximises the Gaussian
    likelihood of a batch is the root of its mean squared error, so the loss is
    D/2 · log(2πe · MSE) + rate, with D values in an example. Vanilla's learned scale is the other
    method of the paper, by gradient.

    A scale that is fitted to the batch itself gives no bound. So the model's own scale is set to
    the moving average over training batches, and `elbo` and `distortion` are computed with it; the
    batch's optimal scale is the term `best_scale`.
    """

    no_accumulate_reason = "the scale is the optimal one of a batch"

    def __init__(self, options: Options, model: BaseVAE, data: DataSpec) -> None:
        super().__init__(options, model, data)
        likelihood = _with_scale(model)
        # A running statistic instead of a parameter: `_update` sets it.
        log_scale = likelihood.log_scale.detach()
        del likelihood.log_scale
        likelihood.register_buffer("log_scale", log_scale)

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        output = model(batch.x, batch.y)
        terms = elbo_terms(output, batch.x)
        mean = output.likelihood.mean
        errors = (batch.x - mean).detach().square().flatten(1).mean(1)
        variance = all_gather(errors).mean().clamp(min=SMALLEST_SCALE**2)
        # At the optimum the gradient by the scale is 0, so it can be detached.
        scale = variance.sqrt()
        best = IsotropicNormal(mean, scale, mean.dim() - 1, model.data.log_det)
        loss = (terms["rate"] - best.log_prob(batch.x)).mean()
        if self.training:
            _update(model.likelihood.get_buffer("log_scale"), variance, context.global_step)
        return LossOutput(loss, {**terms, "best_scale": scale})


@torch.no_grad()
def _update(log_scale: Tensor, variance: Tensor, step: Tensor) -> None:
    """Update the model's variance: a plain mean of the batches' at first, then a moving average."""
    weight = (1 / (step + 1)).clamp(min=_MIN_STEP_WEIGHT)
    average = (2 * log_scale).exp().lerp(variance, weight)
    log_scale.copy_(0.5 * average.log())


def _with_scale(model: BaseVAE) -> GaussianLikelihood:
    """The model's likelihood. OptionError if it has no learned scale."""
    likelihood = getattr(model, "likelihood", None)
    if isinstance(likelihood, GaussianLikelihood) and "log_scale" in likelihood.state_dict():
        return likelihood
    raise OptionError(
        "loss sigma_vae sets the one scale of a Gaussian likelihood: give --likelihood "
        "gaussian_learned and no --scale-mode"
    )
