"""A model of two layers with batch norm between them, and its training step."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from vaezoo.data.base import Batch
from vaezoo.losses.base import BaseLoss, LossOutput, Phase, StepContext
from vaezoo.models.base import BaseVAE
from vaezoo.runtime.device import Runtime, precision_context
from vaezoo.training.options import TrainOptions
from vaezoo.training.train_step import TrainStep

TOTAL = 12


class Toy(nn.Module):
    """A regression onto sums. Its buffer `seen` counts batches, as a codebook changes by itself."""

    seen: Tensor

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        middle = nn.BatchNorm1d(7) if norm else nn.LayerNorm(7)
        self.net = nn.Sequential(nn.Linear(5, 7), middle, nn.Tanh(), nn.Linear(7, 1))
        self.register_buffer("seen", torch.zeros(()))

    def on_train_step(self, step: Tensor) -> None:
        return


class ToyLoss(nn.Module):
    def __init__(self, betas: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.betas = betas

    def forward(self, model: Toy, batch: Batch, context: StepContext) -> LossOutput:
        model.seen += 1
        errors = (model.net(batch.x)[:, 0] - batch.x.sum(1)).square()
        return LossOutput(errors.mean(), {"errors": errors})

    def phases(self, model: Toy) -> list[Phase]:
        return [Phase("train", list(model.parameters()), cast("Any", self), betas=self.betas)]


def toy_batches(count: int = TOTAL) -> list[Tensor]:
    noise = torch.Generator().manual_seed(1)
    return [torch.randn(12, 5, generator=noise) for _ in range(count)]


def toy_step(
    norm: bool = True, betas: tuple[float, float] | None = None, **options: Any
) -> TrainStep:
    """The step of a model that is the same each time."""
    torch.manual_seed(0)
    return TrainStep(
        cast("BaseVAE", Toy(norm)),
        cast("BaseLoss", ToyLoss(betas)),
        TrainOptions(**{"lr": 0.01, **options}),
        runtime=Runtime(torch.device("cpu"), "fp32"),
        total_steps=TOTAL,
        note=print,
    )


def take(updates: TrainStep, batches: list[Tensor], start: int = 0) -> list[Tensor]:
    """One step for each batch; the values that each step returned."""
    with precision_context("fp32", True):
        return [
            updates(Batch(x, None), StepContext(torch.tensor(step), TOTAL, 100), step)
            for step, x in enumerate(batches, start)
        ]
