"""The base of likelihoods with a location and a scale: how the two come from the decoder."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from vaezoo import DataSpec, Likelihood
from vaezoo.data.spec import Domain
from vaezoo.models.distributions import to_float32
from vaezoo.models.likelihoods import SMALLEST_SCALE

from .options import LearnedScaleOptions, ScaleOptions


class LocationScaleLikelihood(Likelihood):
    """Each value has a location, in [0, 1] unless the data is real, and a scale.

    The location is (tanh(raw) + 1) / 2, or raw itself for real data, whose values are standardised;
    log-probabilities are of the data before that.

    With ScaleOptions the scale is fixed, with LearnedScaleOptions learned: one number, one for
    each value, or predicted by the decoder, which then gives two values for each: raw locations in
    the first half of the channels and log-scales relative to `options.scale` in the second.
    A scale is never below SMALLEST_SCALE.
    """

    normalised_on: ClassVar[tuple[Domain, ...]] = ("unit", "real")

    def __init__(self, options: ScaleOptions, data: DataSpec) -> None:
        super().__init__(options, data)
        learned, mode = False, "shared"
        if isinstance(options, LearnedScaleOptions):
            learned, mode = True, options.scale_mode
        self.squash = data.domain != "real"
        self.log_det = data.log_det
        self.scale_mode = mode
        shape = data.shape if mode == "per_value" else ()
        log_scale = torch.full(shape, math.log(options.scale))
        if learned and mode != "predicted":
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale, persistent=False)

    @property
    def param_shape(self) -> tuple[int, ...]:
        parts = 2 if self.scale_mode == "predicted" else 1
        return (parts * self.data.channels, *self.data.spatial_shape)

    def raw_and_log_scale(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Raw locations, [batch, *data.shape], and log-scales without a limit, in float32.

        params: [batch, *param_shape]. The log-scale is broadcast against the locations.
        """
        params = to_float32(params)
        if self.scale_mode != "predicted":
            return params, self.log_scale
        raw, log_scale = params.chunk(2, 1)
        # The upper limit only keeps the scale from infinity.
        return raw, self.log_scale + log_scale.clamp(max=20.0)

    def loc_and_scale(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Locations, [batch, *data.shape], and scales, broadcast against them."""
        raw, log_scale = self.raw_and_log_scale(params)
        loc = (torch.tanh(raw) + 1.0) / 2.0 if self.squash else raw
        if self.scale_mode == "shared":
            return loc, log_scale.clamp(min=math.log(SMALLEST_SCALE)).exp()
        # Added, not clamped: a single scale that once fell below the limit would stay there,
        # because it gets no gradient.
        return loc, SMALLEST_SCALE + log_scale.exp()
