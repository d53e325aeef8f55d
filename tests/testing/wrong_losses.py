"""One loss with two phases that keeps the contract, and others that each break it in one place."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaezoo import BaseLoss, BaseVAE, Batch, DataSpec, LossOutput, Options, Phase, StepContext
from vaezoo.models.distributions import kl_divergence, to_float32


class RightLoss(BaseLoss):
    """The ELBO, and a critic that separates latents from draws of the prior."""

    def __init__(self, options: Options, model: BaseVAE, data: DataSpec) -> None:
        super().__init__(options, model, data)
        self.critic = nn.Sequential(nn.Linear(model.latent_shape[0], 8), nn.Tanh(), nn.Linear(8, 1))

    def phases(self, model: BaseVAE) -> list[Phase]:
        return [
            Phase("train", list(model.parameters()), self),
            Phase("critic", list(self.critic.parameters()), self.critic_loss),
        ]

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        posterior, z, prior, likelihood = model(batch.x, batch.y)
        distortion = -likelihood.log_prob(batch.x)
        rate = kl_divergence(posterior, prior, z)
        objective = (distortion + rate - self.critic(z)[:, 0]).mean()
        terms = {"elbo": -distortion - rate, "rate": rate, "distortion": distortion}
        return self.change(LossOutput(objective, terms), batch, model)

    def change(self, output: LossOutput, batch: Batch, model: BaseVAE) -> LossOutput:
        """The output of the main phase; a wrong loss changes it."""
        return output

    def critic_loss(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        z = model.encode(batch.x, model.labels(batch.y)).rsample().detach()
        drawn, encoded = (to_float32(self.critic(v)) for v in (torch.randn_like(z), z))
        wrong = F.softplus(encoded) + F.softplus(-drawn)
        return LossOutput(wrong.mean(), {"wrong": wrong[:, 0]})


class SumsTheBatch(RightLoss):
    def change(self, output: LossOutput, batch: Batch, model: BaseVAE) -> LossOutput:
        return LossOutput(output.loss * len(batch.x), output.terms)


class ColumnObjective(RightLoss):
    def change(self, output: LossOutput, batch: Batch, model: BaseVAE) -> LossOutput:
        return LossOutput(output.loss[None], output.terms)


class WideTerms(RightLoss):
    def change(self, output: LossOutput, batch: Batch, model: BaseVAE) -> LossOutput:
        return LossOutput(output.loss, {"rate": output.terms["rate"].expand(3, -1)})


class WrongElbo(RightLoss):
    def change(self, output: LossOutput, batch: Batch, model: BaseVAE) -> LossOutput:
        return LossOutput(output.loss, {**output.terms, "elbo": -output.terms["elbo"]})


class NoGradient(RightLoss):
    def critic_loss(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        output = super().critic_loss(model, batch, context)
        return LossOutput(output.loss.detach(), output.terms)


class HalfNats(RightLoss):
    """A term as it comes out of a network, in whatever precision."""

    def change(self, output: LossOutput, batch: Batch, model: BaseVAE) -> LossOutput:
        score = self.critic(model(batch.x, batch.y).z)[:, 0]
        return LossOutput(output.loss, {**output.terms, "score": score})


class Overflows(RightLoss):
    """log cosh, written as it is spelled."""

    def change(self, output: LossOutput, batch: Batch, model: BaseVAE) -> LossOutput:
        apart = 100 * (batch.x - model(batch.x).likelihood.mean)
        return LossOutput(output.loss + apart.cosh().log().mean(), output.terms)


class ClipsTheCritic(RightLoss):
    """Changes in the main phase what the other phase owns."""

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        with torch.no_grad():
            for parameter in self.critic.parameters():
                parameter.clamp_(-0.01, 0.01)
        return super().forward(model, batch, context)


class StepsItself(RightLoss):
    """Leaves gradients in parameters of the model."""

    def critic_loss(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        super().forward(model, batch, context).loss.backward()
        return super().critic_loss(model, batch, context)


class OneName(RightLoss):
    def phases(self, model: BaseVAE) -> list[Phase]:
        first, second = super().phases(model)
        return [first, Phase(first.name, second.parameters, second.loss_fn)]


class ForeignParameter(RightLoss):
    def phases(self, model: BaseVAE) -> list[Phase]:
        first, second = super().phases(model)
        return [first, Phase("critic", [nn.Parameter(torch.ones(1))], second.loss_fn)]


class LeavesTheCritic(RightLoss):
    def phases(self, model: BaseVAE) -> list[Phase]:
        return super().phases(model)[:1]


class Anneals(RightLoss):
    """A schedule that an evaluation moves on."""

    def __init__(self, options: Options, model: BaseVAE, data: DataSpec) -> None:
        super().__init__(options, model, data)
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, model: BaseVAE, batch: Batch, context: StepContext) -> LossOutput:
        self.calls += 1
        return super().forward(model, batch, context)


class NeedsGradients(RightLoss):
    """A penalty on a gradient that no evaluation has."""

    def change(self, output: LossOutput, batch: Batch, model: BaseVAE) -> LossOutput:
        z = model.encode(batch.x).rsample()
        (slope,) = torch.autograd.grad(model.decode(z).mean.sum(), z, create_graph=True)
        return LossOutput(output.loss + slope.square().sum(1).mean(), output.terms)
