"""The sampler `hypersphere`: a uniform direction, and a distribution of the radius."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn import functional as F
from torch.types import _size

from vaezoo import LatentSpec, Options
from vaezoo_latents.sphere import SphereUniform, log_area

from .fitting import TINY, StandardizedSampler, TemperedDistribution


class HypersphereSampler(StandardizedSampler):
    """Standardised latents with a uniform direction, and a radius r with log r Gaussian.

    In many dimensions the radius hardly varies, so that latents lie near a sphere. Latents that lie
    on the unit sphere (Davidson et al. 2018) get the uniform distribution on it; its density is
    then with respect to the surface.
    """

    expected_failures: ClassVar[Mapping[str, str]] = {
        "rehearsal": "the host asks where the latents lie, once for each distribution"
    }
    log_radius: Tensor
    on_sphere: Tensor

    def __init__(self, options: Options, latent: LatentSpec) -> None:
        super().__init__(options, latent)
        median = 0.5 * math.log(self.dim)
        self.register_buffer("log_radius", torch.tensor([median, 0.5 / math.sqrt(self.dim)]))
        self.register_buffer("on_sphere", torch.zeros((), dtype=torch.bool))

    def fit(self, latents: Tensor, y: Tensor | None = None) -> None:
        flat = latents.flatten(1).float()
        self.on_sphere.fill_(
            bool(((flat.norm(dim=1) - 1).abs() < 1e-3).all()) and len(self.shape) == 1
        )
        if self.on_sphere:
            self.mean.zero_()
            self.std.fill_(1.0)
        else:
            logs = self.standardize(latents).norm(dim=1).clamp(min=TINY).log()
            self.log_radius.copy_(torch.stack([logs.mean(), logs.std(correction=0)]))
            self.log_radius[1].clamp_(min=TINY)
        self.fitted.fill_(True)

    def distribution(self, y: Tensor | None = None) -> Distribution:
        return SphereUniform(self.dim, self.mean) if self.on_sphere else RadialDistribution(self)


class RadialDistribution(TemperedDistribution[HypersphereSampler]):
    """A uniform direction times a log-normal radius, unstandardised.

    temperature: multiplies the radius.
    """

    @property
    def mean(self) -> Tensor:
        return self.sampler.mean.view(self.event_shape)

    def directions(self, sample_shape: _size) -> Tensor:
        """Points on the unit sphere: [*sample_shape, dim]."""
        size = (*sample_shape, self.sampler.dim)
        return F.normalize(torch.randn(size, device=self.sampler.mean.device), dim=-1)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        directions = self.directions(sample_shape)
        location, scale = self.sampler.log_radius
        noise = torch.randn(directions.shape[:-1], device=directions.device)
        radius = self.temperature * torch.exp(location + scale * noise)
        return self.sampler.unflatten(radius[..., None] * directions)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(r) - log(area · r^(dim - 1)) - Σ log std, in nats: [..., *shape] -> [...]."""
        location, scale = self.sampler.log_radius
        log_r = self.sampler.flatten(value).norm(dim=-1).clamp(min=TINY).log()
        normal = -0.5 * ((log_r - location) / scale).square() - scale.log()
        log_p = normal - 0.5 * math.log(2 * math.pi) - log_r
        dim = self.sampler.dim
        return log_p - log_area(dim) - (dim - 1) * log_r - self.sampler.log_det
