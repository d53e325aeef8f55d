"""The samplers `maf` and `nsf`: normalizing flows over vectors, by the library zuko."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.types import _size

from vaezoo import LatentSpec
from vaezoo.io import require_extra
from vaezoo.models.distributions import BaseDistribution

from .fitting import MAX_NORM, StandardizedSampler, random_batch, train
from .options import FlowOptions, SplineOptions


class FlowSampler(StandardizedSampler):
    """A normalizing flow over standardised latents, trained by maximum likelihood.

    flow: a zuko.flows.Flow over vectors of the latents' size. The density is exact, in the units
    of the latents.
    """

    options: FlowOptions | SplineOptions

    def __init__(
        self, options: FlowOptions | SplineOptions, latent: LatentSpec, flow: nn.Module
    ) -> None:
        super().__init__(options, latent)
        self.flow = flow

    def fit(self, latents: Tensor, y: Tensor | None = None) -> None:
        options = self.options
        if not options.steps:
            return
        z = self.standardize(latents)

        def loss() -> Tensor:
            return -self.flow().log_prob(random_batch(z, options.batch_size)).mean()

        train(self.flow, loss, steps=options.steps, lr=options.lr, max_norm=MAX_NORM)
        self.fitted.fill_(True)

    def distribution(self, y: Tensor | None = None) -> FlowDistribution:
        return FlowDistribution(self)


class FlowDistribution(BaseDistribution):
    """The distribution of a flow: batch shape (), event shape that of a latent.

    temperature: multiplies the Gaussian noise that the flow transforms; `log_prob` is at 1.
    """

    def __init__(self, sampler: FlowSampler, temperature: float = 1.0) -> None:
        super().__init__((), sampler.shape)
        self.sampler, self.temperature = sampler, temperature

    def with_temperature(self, temperature: float) -> FlowDistribution:
        """The flow of noise that is multiplied by `temperature`."""
        return FlowDistribution(self.sampler, temperature)

    @torch.no_grad()
    def sample(self, sample_shape: _size = ()) -> Tensor:
        flow = self.sampler.flow()
        noise = self.temperature * flow.base.sample(torch.Size(sample_shape))
        return self.sampler.unflatten(flow.transform.inv(noise))

    def log_prob(self, value: Tensor) -> Tensor:
        """In nats: [..., *shape] -> [...]."""
        log_p: Tensor = self.sampler.flow().log_prob(self.sampler.flatten(value))
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
