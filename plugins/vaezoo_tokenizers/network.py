"""The network `ldm`: the encoder and the decoder of latent diffusion, for images."""

from __future__ import annotations

import math

from torch import nn

from vaezoo import DataSpec, Network
from vaezoo.errors import DataError
from vaezoo.nn.scaling import rescaling

from .ldm import LDMDecoder, LDMEncoder, Structure
from .options import LDMOptions

_VECTOR_CHANNELS = 16
"""Channels of the grid that a vector is made of."""


class LDMNetwork(Network):
    """Residual blocks with GroupNorm and SiLU, and attention at the lowest level.

    Rombach et al. 2022, appendix E.1, after Esser et al. 2021, table 7. The factor between the
    sizes of the examples and of the grid is 2 ** (levels - 1). Examples in [0, 1] are mapped to
    [-1, 1] by the first layer, so that the weights are those of such examples. For a vector, 16
    channels of the grid are flattened. DataError for a size that the factor does not divide.
    """

    options: LDMOptions

    def __init__(self, options: LDMOptions, data: DataSpec) -> None:
        super().__init__(options, data)
        self.structure = Structure(
            options.hidden,
            options.layers_per_block,
            options.norm_groups,
            options.attention,
            options.attention_levels,
        )
        factor = self.structure.factor
        if any(size % factor for size in data.spatial_shape):
            fits = sorted({max(factor, size // factor * factor) for size in data.spatial_shape})
            raise DataError(
                f"network ldm with {len(options.hidden)} levels takes images whose sides are "
                f"multiples of {factor}, as {' and '.join(map(str, fits))}, not "
                f"{'×'.join(map(str, data.spatial_shape))}: give another --image-size, or fewer "
                "levels with --hidden"
            )
        self.latent_grid = tuple(size // factor for size in data.spatial_shape)

    def encoder(self, out_features: int) -> nn.Module:
        features = _VECTOR_CHANNELS * math.prod(self.latent_grid)
        body = self.grid_encoder(_VECTOR_CHANNELS)
        return nn.Sequential(body, nn.Flatten(), nn.Linear(features, out_features))

    def decoder(self, in_features: int, out_shape: tuple[int, ...]) -> nn.Module:
        shape = (_VECTOR_CHANNELS, *self.latent_grid)
        return nn.Sequential(
            nn.Linear(in_features, math.prod(shape)),
            nn.Unflatten(1, shape),
            self.grid_decoder(_VECTOR_CHANNELS, out_shape),
        )

    def grid_encoder(self, channels: int) -> nn.Module:
        return LDMEncoder(
            self.structure,
            self.data.channels,
            channels,
            rescale=rescaling(self.data),
            quant_conv=self.options.quant_conv,
        )

    def grid_decoder(self, channels: int, out_shape: tuple[int, ...]) -> nn.Module:
        return LDMDecoder(
            self.structure, channels, out_shape[0], post_quant_conv=self.options.post_quant_conv
        )
