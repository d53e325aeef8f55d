"""What samplers that are trained share: standardised latents, and the training of a network."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from vaezoo import LatentSpec, Options, Sampler
from vaezoo.runtime import report_progress

TINY = 1e-6
"""The least standard deviation, of a latent value that never changes."""


class StandardizedSampler(Sampler):
    """A sampler of flat latents, [n, dim], of mean 0 and standard deviation 1."""

    mean: Tensor
    std: Tensor
    fitted: Tensor

    def __init__(self, options: Options, latent: LatentSpec) -> None:
        super().__init__(options, latent)
        self.shape, self.dim = latent.shape, math.prod(latent.shape)
        self.register_buffer("mean", torch.zeros(self.dim))
        self.register_buffer("std", torch.ones(self.dim))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    @property
    def is_fitted(self) -> bool:
        return bool(self.fitted)

    def standardize(self, latents: Tensor) -> Tensor:
        """Take the mean and the standard deviation of these latents, and standardise them."""
        flat = latents.flatten(1).float()
        self.mean.copy_(flat.mean(0))
        self.std.copy_(flat.std(0, correction=0).clamp(min=TINY))
        return self.flatten(latents)

    def flatten(self, z: Tensor) -> Tensor:
        """Latents [..., *shape] as standardised vectors, [..., dim]."""
        return (z.flatten(z.dim() - len(self.shape)) - self.mean) / self.std

    def unflatten(self, x: Tensor) -> Tensor:
        """The inverse of `flatten`."""
        return (self.mean + self.std * x).unflatten(-1, self.shape)

    @property
    def log_det(self) -> Tensor:
        """Σ log std: what a log-density of standardised vectors is larger than that of latents."""
        return self.std.log().sum()


@torch.enable_grad()
def train(
    network: nn.Module,
    loss: Callable[[Tensor], Tensor],
    z: Tensor,
    *,
    steps: int,
    batch_size: int,
    lr: float,
) -> None:
    """Minimise loss(batch) over random batches of z, [n, ...], by Adam with a cosine schedule.

    Uses torch's global generator. Afterwards no parameter of the network requires a gradient.
    """
    network.requires_grad_(True).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warmup_cosine(steps))
    for step in range(steps):
        report_progress("fitting the sampler, step", step, steps)
        value = loss(z[torch.randint(len(z), (batch_size,), device=z.device)])
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    network.requires_grad_(False).eval()


def warmup_cosine(steps: int) -> Callable[[int], float]:
    """The factor of the learning rate: linear warm-up over 2 % of the steps, then a cosine to 0."""
    warmup = max(1, steps // 50)

    def factor(step: int) -> float:
        return min((step + 1) / warmup, 0.5 * (1.0 + math.cos(math.pi * step / steps)))

    return factor
