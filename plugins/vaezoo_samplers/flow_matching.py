"""The sampler `flow_matching`: a rectified flow from noise to latents, also to codes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.types import _size

from vaezoo import LatentSpec, Sampler
from vaezoo.models.bottleneck import Codebook
from vaezoo.models.distributions import BaseDistribution

from .fitting import TINY, check_classes, check_labels, train
from .options import FlowMatchingOptions
from .unet import UNetVelocity
from .velocity import MLPVelocity

_AT_ONCE = 2048
"""Latents that are drawn together."""
_VECTOR_STEPS, _GRID_STEPS = 5000, 2000

Velocity = Callable[[Tensor, Tensor], Tensor]
"""The velocity at points x, [n, *shape], and a time t, [1]."""


class FlowMatchingSampler(Sampler):
    """Latents as the end of an ordinary differential equation that starts from Gaussian noise.

    Rectified flow (Liu et al. 2022, equation 1), which is flow matching with straight paths (Lipman
    et al. 2022): x_t = (1 - t) noise + t z, and a network learns the velocity z - noise, by the
    mean squared error. On grids this is latent diffusion (Rombach et al. 2022) in a simple form.

    The values of a vector, or the channels of a grid, are rotated to their principal components,
    and these are standardised. The averages of the weights over the steps are kept. For codes it
    works on the first components of the code vectors, and what it draws is replaced by the nearest
    codes.

    With `conditional`, the class is dropped from a part of the examples, so that there is a
    velocity without a class too; guidance g moves by v(none) + g (v(class) - v(none)) (Ho &
    Salimans 2022). It has no exact density here. Until it is fitted, it is standard Gaussian.
    """

    has_density = False
    sampling_options = ("guidance", "ode_steps")
    options: FlowMatchingOptions
    mean: Tensor
    directions: Tensor
    std: Tensor
    fitted: Tensor

    def __init__(self, options: FlowMatchingOptions, latent: LatentSpec) -> None:
        super().__init__(options, latent)
        check_classes(options.conditional, latent)
        self.shape, self.conditional = latent.shape, options.conditional
        # Not a submodule: its weights are the bottleneck's.
        self._codebook: list[Codebook] = [] if latent.codebook is None else [latent.codebook]
        classes = latent.num_classes if options.conditional else 0
        features, *grid = latent.shape
        channels = features if latent.codebook is None else min(features, options.code_components)
        self.components = (channels, *grid)
        self.network: nn.Module = (
            UNetVelocity(channels, tuple(grid), options.width // 8, options.layers // 2, classes)
            if grid
            else MLPVelocity(channels, options.width, options.layers, classes)
        )
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("directions", torch.eye(features)[:channels])
        self.register_buffer("std", torch.ones(channels))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    @property
    def is_fitted(self) -> bool:
        return bool(self.fitted)

    def distribution(self, y: Tensor | None = None) -> FlowDistribution:
        return FlowDistribution(self, y if self.conditional else None)

    def vectors(self, latents: Tensor) -> Tensor:
        """Latents as they are, or the vectors of codes: indices [n, *grid] -> [n, *shape]."""
        return self._codebook[0].indices_to_codes(latents.long()) if self._codebook else latents

    def whiten(self, z: Tensor) -> Tensor:
        """Latents [n, *shape] as standardised principal components, [n, *components]."""
        along = torch.einsum("kc,nc...->nk...", self.directions, z - _along(self.mean, z))
        return along / _along(self.std, z)

    def unwhiten(self, x: Tensor) -> Tensor:
        """The inverse of `whiten`; for codes, the nearest codes."""
        along = torch.einsum("kc,nk...->nc...", self.directions, x * _along(self.std, x))
        z = along + _along(self.mean, x)
        if not self._codebook:
            return z
        return self._codebook[0].indices_to_codes(self._codebook[0].codes_to_indices(z))

    def guided_velocity(self, y: Tensor | None) -> Velocity:
        """The velocity for class numbers y, [n], with guidance."""
        guidance = self.options.guidance

        def field(x: Tensor, t: Tensor) -> Tensor:
            with_class: Tensor = self.network(x, t, y)
            if y is None or guidance == 1.0:
                return with_class
            without: Tensor = self.network(x, t, None)
            return without + guidance * (with_class - without)

        return field

    def fit(self, latents: Tensor, y: Tensor | None = None) -> None:
        given = self.options.steps
        steps = (_GRID_STEPS if len(self.shape) > 1 else _VECTOR_STEPS) if given is None else given
        if not steps:
            return
        labels = check_labels(latents, y) if self.conditional else None
        self._standardize(latents)
        decay = min(0.999, 1 - 10 / (steps + 10))
        averaged = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(decay))
        train(
            self.network,
            lambda: self._loss(latents, labels),
            steps=steps,
            lr=self.options.lr,
            after_step=lambda: averaged.update_parameters(self.network),
        )
        self.network.load_state_dict(averaged.module.state_dict())
        self.fitted.fill_(True)

    def _loss(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """The mean squared error of the velocity at random times, for a random batch."""
        device, options = latents.device, self.options
        index = torch.randint(len(latents), (options.batch_size,), device=device)
        z = self.whiten(self.vectors(latents[index]).float())
        noise, t = torch.randn_like(z), torch.rand(len(z), device=device)
        y = None
        if labels is not None:
            dropped = torch.rand(len(z), device=device) < options.label_dropout
            y = torch.where(dropped, -1, labels[index])
        along = t.view(-1, *[1] * (z.dim() - 1))
        found = self.network((1 - along) * noise + along * z, t, y)
        return (found - (z - noise)).square().mean()

    def _standardize(self, latents: Tensor) -> None:
        count, features = 0, len(self.mean)
        total = self.mean.new_zeros(features, dtype=torch.float64)
        products = self.mean.new_zeros(features, features, dtype=torch.float64)
        for part in latents.split(_AT_ONCE):
            z = self.vectors(part).double().movedim(1, -1).flatten(0, -2)
            count, total, products = count + len(z), total + z.sum(0), products + z.T @ z
        mean = total / count
        variances, directions = torch.linalg.eigh(products / count - mean.outer(mean))
        largest = variances.flip(0)[: len(self.std)]
        self.mean.copy_(mean)
        self.directions.copy_(directions.T.flip(0)[: len(self.std)])
        self.std.copy_(largest.clamp(min=0).sqrt().clamp(min=TINY))


class FlowDistribution(BaseDistribution):
    """The distribution of the flow's end: batch shape (), or [n] for n classes.

    temperature: multiplies the noise that the flow starts from.
    """

    def __init__(
        self, sampler: FlowMatchingSampler, y: Tensor | None, temperature: float = 1.0
    ) -> None:
        super().__init__(() if y is None else y.shape, sampler.shape)
        self.sampler, self.y, self.temperature = sampler, y, temperature

    def with_temperature(self, temperature: float) -> FlowDistribution:
        """The flow from noise that is multiplied by `temperature`."""
        return FlowDistribution(self.sampler, self.y, temperature)

    @torch.no_grad()
    def sample(self, sample_shape: _size = ()) -> Tensor:
        sampler = self.sampler
        shape = torch.Size(sample_shape) + self.batch_shape
        n, device = shape.numel(), sampler.mean.device
        y = None if self.y is None else self.y.to(device).expand(shape).reshape(n)
        noise = self.temperature * torch.randn(n, *sampler.components, device=device)
        found = []
        for i in range(0, n, _AT_ONCE):
            part = slice(i, i + _AT_ONCE)
            field = sampler.guided_velocity(None if y is None else y[part])
            x = noise[part]
            if sampler.is_fitted:
                x = integrate(field, x, sampler.options.ode_steps)
            found.append(sampler.unwhiten(x))
        z = torch.cat(found) if found else noise.new_empty(0, *self.event_shape)
        return z.view(*shape, *self.event_shape)


def _along(values: Tensor, z: Tensor) -> Tensor:
    """Values of each channel, in the shape that broadcasts against z, [n, channels, ...]."""
    return values.view(-1, *[1] * (z.dim() - 2))


def integrate(velocity: Velocity, x: Tensor, steps: int) -> Tensor:
    """The end at t = 1 of dx/dt = velocity(x, t) from x at t = 0, by Heun's method."""
    times = torch.linspace(0, 1, steps + 1, device=x.device)
    for t, later in zip(times[:-1, None], times[1:, None], strict=True):
        slope = velocity(x, t)
        after = velocity(x + (later - t) * slope, later)
        x = x + (later - t) * (slope + after) / 2
    return x
