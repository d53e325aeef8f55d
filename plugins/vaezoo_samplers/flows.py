"""The samplers `maf` and `nsf`: normalizing flows over vectors, by the library zuko."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.types import _size

from vaezoo import LatentSpec
from vaezoo.io import require_extra

from .fitting import NetworkSampler, TemperedDistribution
from .options import FlowOptions, SplineOptions


class FlowSampler(NetworkSampler):
    """A normalizing flow over standardised latents, trained by maximum likelihood.

    flow: a zuko.flows.Flow over vectors of the latents' size. The density is exact, in the units
    of the latents.
    """

    options: FlowOptions | SplineOptions

    def __init__(
        self, options: FlowOptions | SplineOptions, latent: LatentSpec, flow: nn.Module
    ) -> None:
        super().__init__(options, latent)
        self.network = flow

    def loss(self, z: Tensor) -> Tensor:
        return -self.network().log_prob(z).mean()

    def distribution(self, y: Tensor | None = None) -> FlowDistribution:
        return FlowDistribution(self)


class FlowDistribution(TemperedDistribution[FlowSampler]):
    """The distribution of a flow, which transforms Gaussian noise."""

    @torch.no_grad()
    def sample(self, sample_shape: _size = ()) -> Tensor:
        flow = self.sampler.network()
        noise = self.temperature * flow.base.sample(torch.Size(sample_shape))
        return self.sampler.unflatten(flow.transform.inv(noise))

    def log_prob(self, value: Tensor) -> Tensor:
        """In nats: [..., *shape] -> [...]."""
        log_p: Tensor = self.sampler.network().log_prob(self.sampler.flatten(value))
        return log_p - self.sampler.log_det


def masked_autoregressive(options: FlowOptions, latent: LatentSpec) -> FlowSampler:
    """A masked autoregressive flow (Papamakarios et al. 2017): affine, by masked networks."""
    zuko = require_extra("zuko", "--sampler maf", "flows")
    flow = zuko.flows.MAF(
        latent_size(latent),
        transforms=options.transforms,
        hidden_features=options.hidden,
        randperm=False,
    )
    return FlowSampler(options, latent, flow)


def neural_spline(options: SplineOptions, latent: LatentSpec) -> FlowSampler:
    """A neural spline flow (Durkan et al. 2019): monotonic rational-quadratic splines."""
    zuko = require_extra("zuko", "--sampler nsf", "flows")
    flow = zuko.flows.NSF(
        latent_size(latent),
        bins=options.bins,
        transforms=options.transforms,
        hidden_features=options.hidden,
    )
    return FlowSampler(options, latent, flow)


def latent_size(latent: LatentSpec) -> int:
    """The number of values of a latent."""
    return torch.Size(latent.shape).numel()
