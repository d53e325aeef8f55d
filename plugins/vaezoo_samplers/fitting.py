"""What samplers that are trained share: standardised latents, and the training of a network."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Generic, Self, TypeVar

import torch
from torch import Tensor, nn

from vaezoo import LatentSpec, Options, Sampler
from vaezoo.errors import OptionError
from vaezoo.models.distributions import BaseDistribution
from vaezoo.runtime import report_progress

from .options import NetworkOptions

TINY = 1e-6
"""The least standard deviation, of a latent value that never changes."""


_MAX_NORM = 10.0
"""Of the gradients of networks on vectors: single batches of a flow have far larger ones."""


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


class NetworkSampler(StandardizedSampler):
    """A standardised sampler whose `network` is trained on random batches.

    A subclass sets `network`, and defines the loss.
    """

    options: NetworkOptions
    network: nn.Module

    @abstractmethod
    def loss(self, z: Tensor) -> Tensor:
        """The loss to minimise, 0-dim, of standardised vectors z: [batch, dim]."""

    def fit(self, latents: Tensor, y: Tensor | None = None) -> None:
        options = self.options
        if not options.steps:
            return
        z = self.standardize(latents)
        train(
            self.network,
            lambda: self.loss(random_batch(z, options.batch_size)),
            steps=options.steps,
            lr=options.lr,
            max_norm=_MAX_NORM,
        )
        self.fitted.fill_(True)


SamplerT = TypeVar("SamplerT", bound=StandardizedSampler)


class TemperedDistribution(BaseDistribution, Generic[SamplerT]):
    """Samples of a sampler: batch shape (), event shape that of a latent.

    temperature: multiplies the noise that a sample is made of; `log_prob` is at 1.
    """

    def __init__(self, sampler: SamplerT, temperature: float = 1.0) -> None:
        super().__init__((), sampler.shape)
        self.sampler, self.temperature = sampler, temperature

    def with_temperature(self, temperature: float) -> Self:
        """The same with noise that is multiplied by `temperature`."""
        return type(self)(self.sampler, temperature)


def check_classes(conditional: bool, latent: LatentSpec) -> None:
    """OptionError if a sampler is to be conditional, and the data has no classes."""
    if conditional and not latent.num_classes:
        raise OptionError("--conditional: this data has no classes")


def check_labels(latents: Tensor, y: Tensor | None) -> Tensor:
    """The class numbers of all latents, on their device; OptionError if there are not as many."""
    if y is None or len(y) != len(latents):
        raise OptionError("--conditional: not every example of this data has a class")
    return y.to(latents.device)


@torch.enable_grad()
def train(
    network: nn.Module,
    loss: Callable[[], Tensor],
    *,
    steps: int,
    lr: float,
    max_norm: float = math.inf,
    after_step: Callable[[], object] = lambda: None,
) -> None:
    """Minimise `loss()`, of a new random batch each time, by Adam with a cosine schedule.

    max_norm: of the gradient, which is clipped to it. Afterwards the network is in evaluation mode,
    and none of its parameters requires a gradient.
    """
    network.requires_grad_(True).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warmup_cosine(steps, 0.02))
    for step in range(steps):
        report_progress("fitting the sampler, step", step, steps)
        loss().backward()
        nn.utils.clip_grad_norm_(network.parameters(), max_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        after_step()
    network.requires_grad_(False).eval()


def random_batch(z: Tensor, size: int) -> Tensor:
    """Examples of z, [size, ...], drawn with torch's global generator."""
    return z[torch.randint(len(z), (size,), device=z.device)]


def warmup_cosine(steps: int, warmup: float) -> Callable[[int], float]:
    """The factor of the learning rate: linear over a part of the steps, then a cosine to 0.

    warmup: that part, in [0, 1].
    """
    first = max(1, int(steps * warmup))

    def factor(step: int) -> float:
        return min((step + 1) / first, 0.5 * (1.0 + math.cos(math.pi * step / steps)))

    return factor
