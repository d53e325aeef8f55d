"""The losses of autoencoders: reconstruction, and a regularised one (Ghosh et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaezoo import BaseLoss, BaseVAE, Batch, DataSpec, LossOutput, StepContext

from .options import RAEOptions
from .smoothness import gradient_penalty, limit_spectrum, squared_norm


class ReconstructionLoss(BaseLoss):
    """-log p(x|z) in nats per example, without a term for z.

    Under a Gaussian likelihood of a fixed scale s that is  ‖x − x̂‖² / (2 s²)  and a constant: the
    mean squared error (Hinton & Salakhutdinov 2006), in nats.
    Under a Bernoulli likelihood it is the cross-entropy.
    """

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        distortion = -model(batch.x, batch.y).likelihood.log_prob(batch.x)
        return LossOutput(distortion.mean(), {"distortion": distortion})


class RAELoss(BaseLoss):
    """distortion + beta · ‖z‖² / 2 + lambda · regulariser, in nats per example.

    The loss of Ghosh et al. (2019, section 3). The regulariser is the squared norm of the decoder's
    parameters, the squared Frobenius norm of its Jacobian, or, instead of a term, spectral norm in
    every layer of the decoder.

    Their distortion is the squared error. Here it is -log p(x|z) in nats, which for a Gaussian of
    scale s is the squared error times 1 / (2 s²): multiply their weights by that. In these units
    the penalty with weight lambda costs, to first order, as much as noise of variance
    2 s² · lambda on the latents.
    """

    options: RAEOptions

    def __init__(self, options: RAEOptions, model: BaseVAE, data: DataSpec) -> None:
        super().__init__(options, model, data)
        if options.regulariser == "spectral_norm":
            limit_spectrum(model.get_submodule("decoder"))
        if options.regulariser == "gradient_penalty":
            self.no_shard_reason = "the gradient penalty differentiates their gradients"

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        y = model.labels(batch.y)
        z = model.encode(batch.x, y).rsample()
        likelihood, regulariser = self._decode(model, z, y)
        terms = {
            "distortion": -likelihood.log_prob(batch.x),
            "latent_penalty": self.options.latent_weight * 0.5 * z.flatten(1).square().sum(1),
        }
        if regulariser is not None:
            terms["decoder_penalty"] = self.options.weight() * regulariser
        return LossOutput(torch.stack([term.mean() for term in terms.values()]).sum(), terms)

    def _decode(
        self, model: BaseVAE, z: Tensor, y: Tensor | None
    ) -> tuple[Distribution, Tensor | None]:
        """p(x|z), and the regulariser, if it is a term: [batch] or 0-dim."""
        if self.options.regulariser == "gradient_penalty":
            return gradient_penalty(lambda z: model.decode(z, y), z)
        likelihood = model.decode(z, y)
        if self.options.regulariser == "l2":
            return likelihood, squared_norm(model.get_submodule("decoder"))
        return likelihood, None
