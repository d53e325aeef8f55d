"""A model of all that a resume must bring back: dropout, batch norm, a buffer that moves."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.distributions import Distribution

from vaezoo import BaseVAE, DataSpec, Options, Parts
from vaezoo.models.distributions import gaussian_from_params


class DroppingOptions(Options):
    size: int = Field(3, ge=1, description="size of the latent")


class Dropping(BaseVAE):
    parts = ("likelihood",)
    options: DroppingOptions
    min_batch_size = 2

    def __init__(self, options: DroppingOptions, data: DataSpec, parts: Parts) -> None:
        super().__init__(options, data)
        self.latent_shape = (options.size,)
        self.encoder = nn.Sequential(
            nn.Flatten(),
            nn.Linear(data.numel, 32),
            nn.BatchNorm1d(32),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(32, 2 * options.size),
        )
        self.decoder = nn.Sequential(
            nn.Linear(options.size, 32),
            nn.Dropout(0.3),
            nn.Linear(32, data.numel),
            nn.Unflatten(1, data.shape),
        )
        self.likelihood = parts.likelihood
        self.drift: Tensor
        self.register_buffer("drift", torch.zeros(()))

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return gaussian_from_params(self.encoder(x) + self.drift)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return self.likelihood(self.decoder(z))

    def on_train_step(self, step: Tensor) -> None:
        """Follows from all steps before it, not from the last alone."""
        self.drift.mul_(0.9).add_(0.01 * torch.sin(step.float()))
