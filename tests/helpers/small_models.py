"""Small models in double precision, images for them, and the value of their loss."""

from __future__ import annotations

import torch
from torch import Tensor

import vaezoo
from vaezoo import BaseVAE, Batch, LossOutput, StepContext


def small_model(name: str, latent_dim: int = 3, **options: object) -> BaseVAE:
    torch.manual_seed(0)
    small = {"network": "mlp", "hidden": (16,), "latent_dim": latent_dim}
    return vaezoo.create_model(name, (1, 8, 8), **small, **options).double()


def images(n: int = 8) -> Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.manual_seed(2), dtype=torch.float64)


def run_loss(
    vae: BaseVAE, x: Tensor, step: int = 0, total: int = 10, examples: int = 100
) -> LossOutput:
    """The loss with the same noise each time. total: steps. examples: of the data set."""
    torch.manual_seed(1)
    assert vae.loss is not None
    output: LossOutput = vae.loss(vae, Batch(x), StepContext(torch.tensor(step), total, examples))
    return output


def fit(vae: BaseVAE, x: Tensor, steps: int, lr: float) -> list[dict[str, Tensor]]:
    """Train on the same examples with Adam. Returns the detached terms of each step."""
    assert vae.loss is not None
    (phase,) = vae.loss.phases(vae)
    optimizer = torch.optim.Adam(phase.parameters, lr=lr)
    seen = []
    for step in range(steps):
        output = phase.loss_fn(vae, Batch(x), StepContext(torch.tensor(step), steps, len(x)))
        optimizer.zero_grad()
        output.loss.backward(inputs=list(phase.parameters))
        optimizer.step()
        seen.append({name: value.detach() for name, value in output.terms.items()})
    return seen
