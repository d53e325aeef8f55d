"""Importance-weighted bounds: several draws of each example under one logarithm."""

from __future__ import annotations

import torch
from torch import Tensor

from vaezoo import BaseLoss, BaseVAE, Batch, LossOutput, StepContext
from vaezoo.models.distributions import log_mean_exp

from .options import IwaeOptions, MiwaeOptions

_DECODED = 1024
"""How many decoded examples are held at once where no gradient needs them all."""


class IwaeLoss(BaseLoss):
    """-log mean over K of p(x|z) p(z) / q(z|x), in nats per example, averaged over the batch.

    Burda et al. 2015, equation 8; K = 1 is the ELBO. Terms: `bound`, and the `elbo` of the same
    draws, their mean logarithm.

    With gradient `doubly_reparameterized` the encoder's gradient is the IWAE-DReG of Tucker et al.
    2018: each draw's path gradient times its normalised weight squared. The objective's value and
    the decoder's gradient are the bound's own. Memory and time grow with the draws: all are
    decoded at once where a gradient is taken.
    """

    options: IwaeOptions

    @property
    def groups(self) -> int:
        """How many logarithms are averaged."""
        return 1

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        if torch.is_grad_enabled() and self.options.gradient == "doubly_reparameterized":
            return self._doubly_reparameterized(model, batch)
        log_weights = self._log_weights(model, batch)
        bound = self._bound(log_weights)
        return LossOutput(-bound.mean(), {"bound": bound, "elbo": log_weights.mean(0)})

    def _log_weights(self, model: BaseVAE, batch: Batch) -> Tensor:
        """[groups · samples, batch]."""
        draws = self.groups * self.options.samples
        at_once = draws if torch.is_grad_enabled() else max(1, _DECODED // len(batch.x))
        return torch.cat(
            [
                model.log_importance_weights(batch.x, batch.y, min(at_once, draws - done))
                for done in range(0, draws, at_once)
            ]
        )

    def _bound(self, log_weights: Tensor) -> Tensor:
        """The mean over groups of the bound over each group's samples: [batch]."""
        return log_mean_exp(self._grouped(log_weights), 1).mean(0)

    def _grouped(self, log_weights: Tensor) -> Tensor:
        """[groups, samples, batch]."""
        return log_weights.unflatten(0, (self.groups, self.options.samples))

    def _doubly_reparameterized(self, model: BaseVAE, batch: Batch) -> LossOutput:
        y = model.labels(batch.y)
        posterior, prior = model.encode(batch.x, y), model.prior(y)
        z = posterior.rsample(torch.Size((self.groups * self.options.samples,)))
        # log q(z|x) depends on the encoder through z and directly. The direct part, the score, has
        # mean 0 and is taken out: the value stays, its gradient goes.
        score = posterior.log_prob(z.detach())
        log_weights = model.log_density_ratio(posterior, prior, z, batch.x, y)
        log_weights = log_weights + (score - score.detach())
        shares = self._grouped(log_weights.detach()).softmax(1).flatten(0, 1)
        if z.requires_grad:
            # The gradient that comes to z has each draw's share once; the encoder's has it twice.
            wide = shares.view(*shares.shape, *[1] * len(model.latent_shape))
            z.register_hook(lambda gradient: gradient * wide)
        bound = self._bound(log_weights.detach())
        surrogate = (shares * log_weights).sum(0) / self.groups
        objective = -(bound + surrogate - surrogate.detach()).mean()
        return LossOutput(objective, {"bound": bound, "elbo": log_weights.detach().mean(0)})


class MiwaeLoss(IwaeLoss):
    """The mean of M bounds of K draws each: Rainforth et al. 2018, section 5.

    M = 1 is the IWAE, K = 1 the ELBO of M draws. The decoder wants many draws under one logarithm,
    the encoder, whose signal drowns in noise there, many logarithms.
    """

    options: MiwaeOptions

    @property
    def groups(self) -> int:
        return self.options.groups
