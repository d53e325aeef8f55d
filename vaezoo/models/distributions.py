"""The language of models and losses: distributions, their KL, the importance-weighted bound.

Argument validation of torch.distributions is off throughout: on an accelerator each check is a
synchronisation with the host.
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

_ONE = torch.Size()
"""The shape of a single sample."""


def diagonal_normal(loc: Tensor, scale: Tensor, event_dims: int = 1) -> Distribution:
    """A Gaussian with diagonal covariance over the last `event_dims` dimensions of `loc`.

    loc: [batch, *event]. scale: standard deviation > 0, broadcast against loc.
    """
    return Independent(Normal(loc, scale, validate_args=False), event_dims, validate_args=False)


def isotropic_normal(loc: Tensor, scale: Tensor, event_dims: int = 1) -> Distribution:
    """A Gaussian with one scale for all the values of the last `event_dims` dimensions of `loc`.

    loc: [batch, *event], event_dims ≥ 1. scale: standard deviation > 0, 0-dim. The same as
    diagonal_normal with that scale everywhere; its log-probability takes a third of the time.
    """
    return _Isotropic(loc, scale, event_dims)


def gaussian_from_params(
    parameters: Tensor, dim: int = 1, logvar_range: tuple[float, float] = (-20.0, 20.0)
) -> Distribution:
    """A diagonal Gaussian from means and log-variances that stand side by side in `dim`.

    parameters: [batch, 2·n, ...]. logvar_range: the range that it is kept in; at first far outside
    of what training visits, so that no input makes the scale 0 or infinite.
    """
    loc, raw = to_float32(parameters).chunk(2, dim)
    scale = torch.exp(0.5 * raw.clamp(*logvar_range))
    return diagonal_normal(loc, scale, loc.dim() - 1)


class _Isotropic(Independent[Normal]):
    def __init__(self, loc: Tensor, scale: Tensor, event_dims: int) -> None:
        super().__init__(Normal(loc, scale, validate_args=False), event_dims, validate_args=False)
        self.scale = scale

    def log_prob(self, value: Tensor) -> Tensor:
        event = range(-self.reinterpreted_batch_ndims, 0)
        squares = (value - self.mean).square().sum(tuple(event))
        constant = self.scale.log() + 0.5 * math.log(2 * math.pi)
        return -0.5 * squares / self.scale.square() - self.event_shape.numel() * constant

    def expand(self, batch_shape: _size, _instance: Distribution | None = None) -> _Isotropic:
        loc = self.mean.expand([*batch_shape, *self.event_shape])
        return _Isotropic(loc, self.scale, self.reinterpreted_batch_ndims)


class Delta(Distribution):
    """All of the mass at one value: the posterior of an encoder that answers with a point.

    It samples and has a mean, so a deterministic autoencoder speaks the language of the others.
    It has no density: there is no rate and no importance weight, and `log_prob` raises
    NotImplementedError.

    value: [batch, *event], of which the last `event_dims` dimensions are the event.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    has_rsample = True

    def __init__(self, value: Tensor, event_dims: int = 1) -> None:
        cut = value.dim() - event_dims
        self.value = value
        super().__init__(value.shape[:cut], value.shape[cut:], validate_args=False)

    def rsample(self, sample_shape: _size = _ONE) -> Tensor:
        """The value itself, [*sample_shape, batch, *event]; gradients flow."""
        return self.value.expand(*sample_shape, *self.value.shape)

    def sample(self, sample_shape: _size = _ONE) -> Tensor:
        """The same, detached."""
        return self.rsample(sample_shape).detach()

    @property
    def mean(self) -> Tensor:
        return self.value

    @property
    def mode(self) -> Tensor:
        return self.value

    @property
    def variance(self) -> Tensor:
        return torch.zeros_like(self.value)


def to_float32(values: Tensor) -> Tensor:
    """Half-precision values as float32, others as they are: nats are summed in full precision."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def kl_divergence(posterior: Distribution, prior: Distribution, z: Tensor) -> Tensor:
    """KL(posterior ‖ prior) in nats: [batch].

    In closed form where torch knows one (or a plugin taught it one with
    torch.distributions.kl.register_kl). A posterior whose KL can only be told at a sample (a
    hierarchy with a top-down prior) has a method `kl_divergence(prior, z)`. Failing both, the
    single-sample estimate log q(z|x) - log p(z), which is unbiased.

    z: a sample of the posterior, [batch, *event].
    """
    own = getattr(posterior, "kl_divergence", None)
    if own is not None:
        result: Tensor = own(prior, z)
        return result
    try:
        return torch_kl.kl_divergence(posterior, prior)
    except NotImplementedError:
        return posterior.log_prob(z) - prior.log_prob(z)


def mode(posterior: Distribution) -> Tensor:
    """The one value that stands for the posterior: [batch, *event].

    Its mean; what it calls its `center`, where it has none in closed form (a flow) or not among its
    values (on a sphere); failing both, a sample.
    """
    center: Tensor | None = getattr(posterior, "center", None)
    if center is not None:
        return center
    try:
        mean: Tensor = posterior.mean
    except NotImplementedError:
        mean = posterior.rsample()
    return mean


def sample_prior(prior: Distribution, n: int, temperature: float = 1.0) -> Tensor:
    """n samples of a prior, [n, *event]; of a conditional one, whose batch is those n, one each.

    Distances from the prior's mean are multiplied by the temperature. A prior to which that does
    no justice (a mixture, a hierarchy) has a method `tempered(temperature)`, the distribution to
    draw from instead. OptionError where the prior has neither, unless the temperature is 1.
    """
    shape = _ONE if prior.batch_shape else torch.Size((n,))
    if temperature == 1.0:
        return prior.sample(shape)
    tempered = getattr(prior, "with_temperature", None)
    if tempered is not None:
        return tempered(temperature).sample(shape)
    try:
        center: Tensor = prior.mean
    except NotImplementedError:
        raise OptionError(
            f"--temperature {temperature:g}: this model's prior has no spread to scale"
        ) from None
    return center + temperature * (prior.sample(shape) - center)


def log_mean_exp(values: Tensor, dim: int = 0) -> Tensor:
    """log(mean(exp(values))) over `dim`, without overflow."""
    count = torch.tensor(float(values.shape[dim]), dtype=values.dtype)
    return torch.logsumexp(values, dim) - count.log().to(values.device)
