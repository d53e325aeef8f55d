"""The mixture of discretized logistics: the likelihood of PixelCNN++ and of deep hierarchies."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.types import _size

from vaezoo import DataSpec
from vaezoo.models.distributions import BaseDistribution, to_float32

from .discretized_logistic import (
    LOG_SCALE_RANGE,
    clamped_mean,
    level_log_prob,
    sample_levels,
    to_symmetric,
)
from .levels import LEVELS, LevelsLikelihood, gumbel
from .options import MixtureOptions


class DiscretizedLogisticMixture(BaseDistribution):
    """Values k / (levels - 1), each a mixture of K discretized logistics.

    logits: of the components, [batch, K, channels, *spatial]: each value has its own component;
        or [batch, K, 1, *spatial]: the channels of a pixel have one together.
    loc, log_scale: where values span [-1, 1], [batch, K, channels, *spatial].
    coefficients: of the linear dependence between three channels, [batch, K, 3, *spatial], or None.
        The location of the second channel is loc + c₀·r, that of the third loc + c₁·r + c₂·g, where
        r and g are the values of the first two in [-1, 1] (Salimans et al. 2017, equation 3).
    """

    def __init__(
        self,
        logits: Tensor,
        loc: Tensor,
        log_scale: Tensor,
        coefficients: Tensor | None = None,
        levels: int = LEVELS,
    ) -> None:
        super().__init__(loc.shape[:1], loc.shape[2:])
        self.logits = logits
        self.loc = loc
        self.log_scale = log_scale.clamp(*LOG_SCALE_RANGE)
        self.coefficients = coefficients
        self.levels = levels
        self.channel_dim = 2 - loc.dim()
        self.mixture_dim = 1 - loc.dim()
        """The dimensions of the channels and of the components, from the end."""

    def log_prob(self, value: Tensor) -> Tensor:
        u = to_symmetric(value, self.levels).unsqueeze(self.mixture_dim)
        loc = self.loc
        if self.coefficients is not None:
            loc = self._condition(
                u.narrow(self.channel_dim, 0, 1), u.narrow(self.channel_dim, 1, 1)
            )
        log_probs = level_log_prob(u, loc, self.log_scale, self.levels)
        if self.logits.shape[2] == 1:
            log_probs = log_probs.sum(self.channel_dim, keepdim=True)
        log_probs = log_probs + torch.log_softmax(self.logits, 1)
        mixed = torch.logsumexp(log_probs, self.mixture_dim)
        first = value.dim() - len(self.event_shape)
        return mixed.flatten(first).sum(first)

    def _condition(self, red: Tensor, green: Tensor) -> Tensor:
        """The locations of the three channels, given the values of the first two in [-1, 1]."""
        assert self.coefficients is not None
        c0, c1, c2 = self.coefficients.split(1, self.channel_dim)
        shifts = (torch.zeros_like(c0 * red), c0 * red, c1 * red + c2 * green)
        return self.loc + torch.cat(shifts, self.channel_dim)

    @property
    def mean(self) -> Tensor:
        """The mean in [0, 1].

        With a linear dependence it is exact as long as no value is clamped at the ends: the
        second and third channel depend on the mean of those before them.
        """
        means = clamped_mean(self.loc, self.log_scale)
        if self.coefficients is not None:
            red = means[:, :, :1]
            green = clamped_mean(self._condition(red, red), self.log_scale)[:, :, 1:2]
            means = clamped_mean(self._condition(red, green), self.log_scale)
        mixed = (torch.softmax(self.logits, 1) * means).sum(1)
        return ((mixed + 1) / 2).clamp(0.0, 1.0)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        with torch.no_grad():
            shape = (*sample_shape, *self.loc.shape)
            logits = self.logits.expand(*sample_shape, *self.logits.shape)
            index = (logits + gumbel(logits)).argmax(self.mixture_dim, keepdim=True)
            index = index.expand(*index.shape[: self.channel_dim], *shape[self.channel_dim :])

            def chosen(values: Tensor) -> Tensor:
                return (
                    values.expand(shape).gather(self.mixture_dim, index).squeeze(self.mixture_dim)
                )

            loc, log_scale = chosen(self.loc), chosen(self.log_scale)
            if self.coefficients is None:
                return (sample_levels(loc, log_scale, self.levels) + 1) / 2
            dim = self.channel_dim
            c0, c1, c2 = chosen(self.coefficients).split(1, dim)
            (lr, lg, lb), (sr, sg, sb) = loc.split(1, dim), log_scale.split(1, dim)
            red = sample_levels(lr, sr, self.levels)
            green = sample_levels(lg + c0 * red, sg, self.levels)
            blue = sample_levels(lb + c1 * red + c2 * green, sb, self.levels)
            return (torch.cat((red, green, blue), dim) + 1) / 2


class DiscretizedLogisticMixtureLikelihood(LevelsLikelihood):
    """Each value is one of 256 levels, with the probabilities of a mixture of logistics.

    Salimans et al. 2017, section 2.1, as in VDVAE and NVAE. For colour images (3, H, W) the
    decoder gives 10 K values for each pixel: K logits, and for each channel K locations, log-scales
    and coefficients of the linear dependence between the channels, which share the component. For
    all other shapes it gives 3 K for each value, and values are independent.
    """

    def __init__(self, options: MixtureOptions, data: DataSpec) -> None:
        super().__init__(options, data)
        self.is_rgb = data.is_image and data.channels == 3
        self.mixtures = options.mixtures

    @property
    def param_shape(self) -> tuple[int, ...]:
        per_pixel = 10 if self.is_rgb else 3 * self.data.channels
        return (per_pixel * self.mixtures, *self.data.spatial_shape)

    def forward(self, params: Tensor) -> Distribution:
        params = to_float32(params)
        if self.is_rgb:
            # [batch, 10, K, H, W] -> [batch, K, 10, H, W]
            parts = params.unflatten(1, (10, self.mixtures)).transpose(1, 2)
            logits, loc, log_scale, raw = parts.split((1, 3, 3, 3), 2)
            return DiscretizedLogisticMixture(logits, loc, log_scale, torch.tanh(raw))
        parts = params.unflatten(1, (3, -1, self.mixtures)).transpose(2, 3)
        return DiscretizedLogisticMixture(parts[:, 0], parts[:, 1], parts[:, 2])
