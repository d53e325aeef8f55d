"""The network `vit`: a vision transformer as encoder and as decoder, for images."""

from __future__ import annotations

import math

from torch import nn

from vaezoo import DataSpec
from vaezoo.errors import DataError
from vaezoo.nn.scaling import rescaling
from vaezoo_networks.grid import GridNetwork

from .block import TransformerBlock
from .options import ViTOptions
from .vit import GridDecoder, GridEncoder, Structure, TokenDecoder, TokenEncoder

_MAX_GRID = 8
"""By default there are at most so many patches along a side."""


class ViTNetwork(GridNetwork):
    """A transformer over the patches of an image (Dosovitskiy et al. 2020).

    Its grid is that of the patches (as in Yu et al. 2021, section 3.1), or with `latent_tokens` the
    sequence of these tokens, a grid of one dimension (TiTok: Yu et al. 2024). For a vector, 16
    channels of the grid are flattened. DataError for a size that no patches fit.
    """

    options: ViTOptions
    block_kinds = (TransformerBlock,)

    def __init__(self, options: ViTOptions, data: DataSpec) -> None:
        super().__init__(options, data)
        size = _patch_size(options, data)
        height, width = data.spatial_shape
        self.structure = Structure(
            (height // size, width // size),
            size,
            options.embed_dim,
            options.depth,
            options.num_heads,
            options.positions == "learned",
        )
        tokens = options.latent_tokens
        self.latent_grid = self.structure.grid if tokens is None else (tokens,)

    def grid_encoder(self, channels: int) -> nn.Module:
        tokens, rescale = self.options.latent_tokens, rescaling(self.data)
        if tokens is None:
            body: nn.Module = GridEncoder(self.structure, self.data.channels, channels, rescale)
        else:
            body = TokenEncoder(self.structure, self.data.channels, tokens, channels, rescale)
        return self.checkpointed(body)

    def grid_decoder(self, channels: int, out_shape: tuple[int, ...]) -> nn.Module:
        tokens = self.options.latent_tokens
        if tokens is None:
            return self.checkpointed(GridDecoder(self.structure, channels, out_shape[0]))
        return self.checkpointed(TokenDecoder(self.structure, tokens, channels, out_shape[0]))


def _patch_size(options: ViTOptions, data: DataSpec) -> int:
    """The side of a patch: as given, or by the size of the data."""
    sides, given = data.spatial_shape, options.patch_size
    common = math.gcd(*sides)
    fitting = [size for size in range(1, common + 1) if common % size == 0]
    text = "×".join(map(str, sides))
    if given is not None:
        if given not in fitting:
            raise DataError(
                f"network vit: --patch-size {given} does not divide the sides of {text} images; "
                f"give {' or '.join(map(str, fitting[-4:]))}, or another --image-size"
            )
        return given
    small = [size for size in fitting if max(sides) // size <= _MAX_GRID]
    if not small:
        raise DataError(
            f"network vit: no patches that divide {text} images leave at most {_MAX_GRID} along a "
            f"side; give --patch-size {' or '.join(map(str, fitting[-4:]))}, or another "
            "--image-size"
        )
    return small[0]
