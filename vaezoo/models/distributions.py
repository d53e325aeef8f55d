"""Distributions of models: Gaussians, a point mass, KL divergence, and what is derived from them.

Argument validation of torch.distributions is off throughout: on an accelerator each check makes
the host wait for the device.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal
from torch.distributions import kl as torch_kl
from torch.types import _size

from vaezoo.errors import OptionError


class BaseDistribution(Distribution):
    """Base of own distributions: no constraints on arguments, no validation.

    A subclass defines `sample`, or `rsample` with `has_rsample = True`, and `log_prob` where it
    has a density. `mode` stands for the distribution: its mean, unless the class defines another,
    as where the mean has no closed form (a flow) or is not in the support (a sphere).

    A posterior of any class may have a method `kl_divergence(prior, z)`, a prior
    `with_temperature(temperature)` and `project(z)`: see `kl_divergence` and `sample_prior` below;
    `project` gives the nearest point of the support, for priors that do not cover their space.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, batch_shape: _size, event_shape: _size) -> None:
        super().__init__(torch.Size(batch_shape), torch.Size(event_shape), validate_args=False)

    @property
    def mode(self) -> Tensor:
        return self.mean


def independent(distribution: Distribution, event_dims: int = 1) -> Distribution:
    """The same distribution with its last `event_dims` batch dimensions as event dimensions."""
    return Independent(distribution, event_dims, validate_args=False)


def diagonal_normal(loc: Tensor, scale: Tensor, event_dims: int = 1) -> Distribution:
    """A Gaussian with diagonal covariance over the last `event_dims` dimensions of `loc`.

    loc: [batch, *event]. scale: standard deviation > 0, broadcast against loc.
    """
    return independent(Normal(loc, scale, validate_args=False), event_dims)


def standard_normal(zero: Tensor, shape: tuple[int, ...]) -> Distribution:
    """A standard Gaussian, batch shape (). zero: a 0-dim 0 on its device. shape: of an event."""
    zeros = zero.expand(shape)
    return diagonal_normal(zeros, torch.ones_like(zeros), len(shape))


def gaussian_from_params(
    parameters: Tensor, dim: int = 1, logvar_range: tuple[float, float] = (-20.0, 20.0)
) -> Distribution:
    """A diagonal Gaussian from means and log-variances, the two halves of `dim`.

    parameters: [batch, 2·n, ...]. logvar_range: log-variances are clamped to it; the default only
    keeps the scale from 0 and from infinity.
    """
    loc, raw = to_float32(parameters).chunk(2, dim)
    return diagonal_normal(loc, torch.exp(0.5 * raw.clamp(*logvar_range)), loc.dim() - 1)


class IsotropicNormal(Independent[Normal]):
    """A Gaussian with one scale for all values of the last `event_dims` dimensions of `loc`.

    loc: [batch, *event], event_dims ≥ 1. scale: standard deviation > 0, 0-dim. The same as
    diagonal_normal with this scale everywhere; its log-probability takes a third of the time.
    log_det: `DataSpec.log_det` for standardised values, whose density is then that of the data.
    """

    def __init__(
        self, loc: Tensor, scale: Tensor, event_dims: int = 1, log_det: float = 0.0
    ) -> None:
        super().__init__(Normal(loc, scale, validate_args=False), event_dims, validate_args=False)
        self.scale = scale
        self.log_det = log_det

    def log_prob(self, value: Tensor) -> Tensor:
        event = range(-self.reinterpreted_batch_ndims, 0)
        squares = (value - self.mean).square().sum(tuple(event))
        constant = self.scale.log() + 0.5 * math.log(2 * math.pi)
        normalizer = self.event_shape.numel() * constant + self.log_det
        return -0.5 * squares / self.scale.square() - normalizer

    def expand(self, batch_shape: _size, _instance: Distribution | None = None) -> IsotropicNormal:
        loc = self.mean.expand([*batch_shape, *self.event_shape])
        return IsotropicNormal(loc, self.scale, self.reinterpreted_batch_ndims, self.log_det)


class Delta(BaseDistribution):
    """A point mass, the posterior of a deterministic encoder.

    It has no density: `log_prob` raises NotImplementedError.

    value: [batch, *event], of which the last `event_dims` dimensions are the event.
    """

    has_rsample = True

    def __init__(self, value: Tensor, event_dims: int = 1) -> None:
        batch_dims = value.dim() - event_dims
        super().__init__(value.shape[:batch_dims], value.shape[batch_dims:])
        self.value = value

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        """The value itself, [*sample_shape, batch, *event]; gradients flow."""
        return self.value.expand(*sample_shape, *self.value.shape)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        """The same, detached."""
        return self.rsample(sample_shape).detach()

    @property
    def mean(self) -> Tensor:
        return self.value

    @property
    def variance(self) -> Tensor:
        return torch.zeros_like(self.value)


def to_float32(values: Tensor) -> Tensor:
    """Half-precision values as float32, others unchanged: terms are summed in full precision."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def kl_divergence(posterior: Distribution, prior: Distribution, z: Tensor) -> Tensor:
    """KL(posterior ‖ prior) in nats: [batch].

    The posterior's own `kl_divergence(prior, z)` where its class defines one, as for a hierarchy
    with a top-down prior; else the closed form registered with torch (a plugin adds one with
    torch.distributions.kl.register_kl). For a prior for which that raises NotImplementedError, such
    as a sampler's, the single-sample estimate log q(z|x) - log p(z), which is unbiased.

    z: a sample of the posterior, [batch, *event].
    """
    own = getattr(posterior, "kl_divergence", None)
    try:
        return torch_kl.kl_divergence(posterior, prior) if own is None else own(prior, z)
    except NotImplementedError:
        return posterior.log_prob(z) - prior.log_prob(z)


# torch keeps the formula for two types that it has found; torch.compile cannot trace the search.
torch_kl.kl_divergence(*[diagonal_normal(torch.zeros(1), torch.ones(1), 1)] * 2)


def mode(posterior: Distribution) -> Tensor:
    """The one value that stands for the posterior: [batch, *event].

    The `mode` of a BaseDistribution, the mean of one of torch's, or a sample if it has neither.
    """
    try:
        return posterior.mode if isinstance(posterior, BaseDistribution) else posterior.mean
    except NotImplementedError:
        return posterior.rsample()


def sample_prior(prior: Distribution, n: int, temperature: float = 1.0) -> Tensor:
    """n samples of a prior: [n, *event]. A conditional prior has batch shape [n]: one sample each.

    temperature: multiplies the distance of a sample from the prior's mean. A prior for which that
    is wrong (a mixture, a hierarchy) has a method `with_temperature(temperature)`, which gives the
    distribution to draw from. OptionError if the prior has neither, unless the temperature is 1.
    """
    shape = torch.Size(() if prior.batch_shape else (n,))
    if temperature == 1.0:
        return prior.sample(shape)
    with_temperature = getattr(prior, "with_temperature", None)
    if with_temperature is not None:
        return with_temperature(temperature).sample(shape)
    try:
        mean = prior.mean
    except NotImplementedError:
        raise OptionError(
            f"--temperature {temperature:g}: this model's prior has no spread to scale"
        ) from None
    return mean + temperature * (prior.sample(shape) - mean)


def project_to_prior(prior: Distribution, z: Tensor) -> Tensor:
    """z, or what is nearest to it of the values that the prior has, where it has not all.

    A prior on a surface has a method `project(z)`.
    """
    project = getattr(prior, "project", None)
    return z if project is None else project(z)


def log_mean_exp(values: Tensor, dim: int = 0) -> Tensor:
    """log(mean(exp(values))) over `dim`, without overflow."""
    return torch.logsumexp(values, dim) - math.log(values.shape[dim])
