"""The losses of IWAE and MIWAE: importance-weighted bounds from several samples."""

from __future__ import annotations

import torch
from torch import Tensor

from vaezoo import BaseLoss, BaseVAE, Batch, LossOutput, StepContext
from vaezoo.models.distributions import log_mean_exp

from .options import IWAEOptions, MIWAEOptions

_CHUNK_SIZE = 1024
"""How many examples are decoded at once where no gradient is taken."""


class IWAELoss(BaseLoss):
    """-log mean over K of p(x|z) p(z) / q(z|x), in nats per example, averaged over the batch.

    Burda et al. 2015, equation 8; K = 1 is the ELBO. Terms: `bound`, and `elbo`, the mean log
    weight of the same samples.

    With gradient `doubly_reparameterized` the encoder's gradient is the IWAE-DReG of Tucker et al.
    2018: the path gradient of each sample times its normalised weight squared. The loss and the
    decoder's gradient are unchanged. Memory and time grow with the number of samples: in training
    all are decoded at once.
    """

    options: IWAEOptions

    @property
    def groups(self) -> int:
        """The number of bounds that are averaged."""
        return 1

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        if torch.is_grad_enabled() and self.options.gradient == "doubly_reparameterized":
            return self._doubly_reparameterized(model, batch)
        log_weights = self._log_weights(model, batch)
        bound = self._bound(log_weights)
        return LossOutput(-bound.mean(), {"bound": bound, "elbo": log_weights.mean(0)})

    def _log_weights(self, model: BaseVAE, batch: Batch) -> Tensor:
        """[groups · samples, batch]."""
        total = self.groups * self.options.samples
        step = total if torch.is_grad_enabled() else max(1, _CHUNK_SIZE // len(batch.x))
        return torch.cat(
            [
                model.log_importance_weights(batch.x, batch.y, min(step, total - done))
                for done in range(0, total, step)
            ]
        )

    def _bound(self, log_weights: Tensor) -> Tensor:
        """The mean over groups of each group's bound: [batch]."""
        return log_mean_exp(self._grouped(log_weights), 1).mean(0)

    def _grouped(self, log_weights: Tensor) -> Tensor:
        """[groups, samples, batch]."""
        return log_weights.unflatten(0, (self.groups, self.options.samples))

    def _doubly_reparameterized(self, model: BaseVAE, batch: Batch) -> LossOutput:
        y = model.labels(batch.y)
        posterior, prior = model.encode(batch.x, y), model.density_prior(y)
        z = posterior.rsample(torch.Size((self.groups * self.options.samples,)))
        # log q(z|x) depends on the encoder through z and directly. The gradient of the direct part,
        # the score, has mean 0 and is removed; the value stays.
        score = posterior.log_prob(z.detach())
        log_weights = model.log_density_ratio(posterior, prior, z, batch.x, y)
        log_weights = log_weights + (score - score.detach())
        weights = self._grouped(log_weights.detach()).softmax(1).flatten(0, 1)
        if z.requires_grad:
            # The gradient that reaches z has the weight once; the encoder's must have it twice.
            factor = weights.view(*weights.shape, *[1] * len(model.latent_shape))
            z.register_hook(lambda gradient: gradient * factor)
        bound = self._bound(log_weights.detach())
        surrogate = (weights * log_weights).sum(0) / self.groups
        loss = -(bound + surrogate - surrogate.detach()).mean()
        return LossOutput(loss, {"bound": bound, "elbo": log_weights.detach().mean(0)})


class MIWAELoss(IWAELoss):
    """The mean of M bounds of K samples each: Rainforth et al. 2018, section 5.

    M = 1 is the IWAE, K = 1 the ELBO of M samples. A large K makes the bound tighter, but the
    encoder's gradient noisier; a large M reduces that noise.
    """

    options: MIWAEOptions

    @property
    def groups(self) -> int:
        return self.options.groups
