"""sigma-VAE: the likelihood's scale is the best one there is, at every step."""

from __future__ import annotations

import torch
from torch import Tensor

from vaezoo import BaseLoss, BaseVAE, Batch, DataSpec, LossOutput, Options, StepContext
from vaezoo.distributed import all_gather
from vaezoo.errors import OptionError
from vaezoo.losses.elbo import elbo_terms
from vaezoo.models.distributions import isotropic_normal
from vaezoo.models.likelihoods import SMALLEST_SCALE, GaussianLikelihood

_SHARE = 0.01
"""What a step counts in the model's own scale, once there have been a hundred."""


class SigmaVaeLoss(BaseLoss):
    """distortion at the batch's best scale + rate, in nats per example.

    Rybkin et al. 2020, section 3.2, the optimal sigma-VAE: the scale that maximises the Gaussian
    likelihood of a batch is the root of its mean squared error, so the objective is
    D/2 · log(2πe · MSE) + rate, D the values of an example. Vanilla's learned scale is the same
    paper's other way, and follows by gradient.

    A scale fitted to the very batch that it judges gives no bound. So the model's own scale is set
    too, to the running mean over training batches, and `elbo` and `distortion` are of that one;
    the batch's best is the term `best_scale`.
    """

    def __init__(self, options: Options, model: BaseVAE, data: DataSpec) -> None:
        super().__init__(options, model, data)
        likelihood = _with_scale(model)
        # A running statistic, and no parameter: it is set below, and never by a gradient.
        log_scale = likelihood.log_scale.detach()
        del likelihood.log_scale
        likelihood.register_buffer("log_scale", log_scale)

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        output = model(batch.x, batch.y)
        terms = elbo_terms(output, batch.x)
        mean = output.likelihood.mean
        errors = (batch.x - mean).detach().square().flatten(1).mean(1)
        variance = all_gather(errors).mean().clamp(min=SMALLEST_SCALE**2)
        # At its best a scale has no gradient of its own: detached it is as good.
        scale = variance.sqrt()
        best = isotropic_normal(mean, scale, mean.dim() - 1)
        objective = (terms["rate"] - best.log_prob(batch.x)).mean()
        if self.training:
            _follow(model.likelihood.get_buffer("log_scale"), variance, context.global_step)
        return LossOutput(objective, {**terms, "best_scale": scale})


@torch.no_grad()
def _follow(log_scale: Tensor, variance: Tensor, step: Tensor) -> None:
    """Move the model's variance towards the batch's: a plain mean at first, then a moving one."""
    share = (1 / (step + 1)).clamp(min=_SHARE)
    moved = (2 * log_scale).exp().lerp(variance, share)
    log_scale.copy_(0.5 * moved.log())


def _with_scale(model: BaseVAE) -> GaussianLikelihood:
    """The model's likelihood. OptionError if it has no scale that is saved with the model."""
    likelihood = getattr(model, "likelihood", None)
    if isinstance(likelihood, GaussianLikelihood) and "log_scale" in likelihood.state_dict():
        return likelihood
    raise OptionError(
        "loss sigma_vae sets the scale of a Gaussian likelihood: give --likelihood gaussian_learned"
    )
