"""The sampler `two_stage`: a second VAE, on the latents of the first."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.types import _size

from vaezoo import LatentSpec

from .fitting import NetworkSampler, TemperedDistribution
from .options import TwoStageOptions

_GAMMA_RATE = 10.0
"""How much faster log γ learns than the weights. Adam moves a parameter by its learning rate a step
at most: at 1e-3, log γ would move by 1.5 in 3,000 steps, and γ could not fall below 0.2."""


class TwoStageSampler(NetworkSampler):
    """A VAE on standardised latents z, with a latent u of their size (Dai & Wipf 2019, section 4).

    q(u|z) and p(z|u) are MLPs with Gaussians; the deviation of p(z|u) is one learned number, γ. A
    sample is u from a standard Gaussian, then z from p(z|u). Its density is only bounded.
    """

    has_density = False
    options: TwoStageOptions
    network: nn.ModuleDict

    def __init__(self, options: TwoStageOptions, latent: LatentSpec) -> None:
        super().__init__(options, latent)
        self.network = nn.ModuleDict(
            {
                "encoder": _mlp(self.dim, 2 * self.dim, options),
                "decoder": _mlp(self.dim, self.dim, options),
            }
        )
        self.network.register_parameter("scaled_log_gamma", nn.Parameter(torch.zeros(())))

    @property
    def log_gamma(self) -> Tensor:
        """log of the standard deviation of p(z|u)."""
        return _GAMMA_RATE * self.network.get_parameter("scaled_log_gamma")

    def loss(self, z: Tensor) -> Tensor:
        """The negative ELBO in nats, without the constant of the Gaussian."""
        mean, log_std = self.network["encoder"](z).chunk(2, 1)
        log_std = log_std.clamp(-10, 5)
        u = mean + log_std.exp() * torch.randn_like(mean)
        squares = (self.network["decoder"](u) - z).square().sum(1)
        distortion = self.dim * self.log_gamma + 0.5 * squares * (-2 * self.log_gamma).exp()
        rate = (0.5 * (mean.square() + (2 * log_std).exp() - 1) - log_std).sum(1)
        return (distortion + rate).mean()

    def distribution(self, y: Tensor | None = None) -> TwoStageDistribution:
        return TwoStageDistribution(self)


class TwoStageDistribution(TemperedDistribution[TwoStageSampler]):
    """Samples of the second VAE."""

    @torch.no_grad()
    def sample(self, sample_shape: _size = ()) -> Tensor:
        sampler, size = self.sampler, (*sample_shape, self.sampler.dim)
        u, noise = (self.temperature * torch.randn(size, device=sampler.mean.device) for _ in "ab")
        z = sampler.network["decoder"](u) + sampler.log_gamma.exp() * noise
        return sampler.unflatten(z)


def _mlp(inputs: int, outputs: int, options: TwoStageOptions) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size in options.hidden:
        layers += [nn.Linear(inputs, size), nn.SiLU()]
        inputs = size
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))
