"""Encoding and decoding in tiles whose seams are blended, for images that do not fit in memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaezoo import BaseVAE, EncoderDecoderVAE
from vaezoo.errors import DataError, OptionError

Size = tuple[int, int]


def encode_tiled(
    model: EncoderDecoderVAE, x: Tensor, *, tile: Size | None = None, overlap: int | None = None
) -> Distribution:
    """The posterior of images that are larger than those of the training: q(z|x).

    The encoder runs on one tile at a time, and what it gives is blended: see `map_tiles`. x:
    [batch, channels, h, w], sides multiples of the factor between image and latent. tile: rows and
    columns of the latent in a tile; None: as in training. overlap: of neighbouring tiles, in
    positions of the latent; None: half of the tile. OptionError if the latent is no grid of an
    image or the sizes do not fit, DataError for a size that the factor does not divide.
    """
    factor = image_factor(model)
    tile, overlap = _sizes(model, tile, overlap)
    if any(size % factor for size in x.shape[2:]):
        sides = "×".join(map(str, x.shape[2:]))
        raise DataError(f"images of {sides}: the sides must be multiples of {factor}")
    pixels = tile[0] * factor, tile[1] * factor
    params = map_tiles(model.encoder, x, pixels, overlap * factor, Fraction(1, factor))
    posterior: Distribution = model.bottleneck(params)
    return posterior


def decode_tiled(
    model: EncoderDecoderVAE, z: Tensor, *, tile: Size | None = None, overlap: int | None = None
) -> Distribution:
    """The likelihood p(x|z) of a latent of any size, [batch, *channels, h, w]; see `encode_tiled`.

    Its mean is the image, [batch, channels, h · factor, w · factor].
    """
    factor = image_factor(model)
    tile, overlap = _sizes(model, tile, overlap)
    features = model.bottleneck.decoder_input(z)
    params = map_tiles(model.decoder, features, tile, overlap, Fraction(factor))
    likelihood: Distribution = model.likelihood(params)
    return likelihood


def map_tiles(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    tile: Size,
    overlap: int,
    scale: Fraction = Fraction(1),
) -> Tensor:
    """function(x), computed from tiles: [batch, c, h, w] -> [batch, c', h · scale, w · scale].

    function: from [batch, c, *tile] to [batch, c', *tile · scale]. Neighbouring tiles have
    `overlap` rows or columns in common, the last ones more. There one tile fades into the other, in
    the middle half of the overlap. So the result is exactly function(x) if no output depends on an
    input farther away than a quarter of the overlap; else it is close to it.
    """
    tile = min(tile[0], x.shape[2]), min(tile[1], x.shape[3])
    rows, columns = (_starts(*pair, overlap) for pair in zip(x.shape[2:], tile, strict=True))
    heights = _weights(x.shape[2], tile[0], overlap, scale).to(x)
    widths = _weights(x.shape[3], tile[1], overlap, scale).to(x)
    result: Tensor | None = None
    for (i, top), (j, left) in itertools.product(enumerate(rows), enumerate(columns)):
        found = function(x[:, :, top : top + tile[0], left : left + tile[1]])
        if result is None:
            result = found.new_zeros(*found.shape[:2], heights.shape[1], widths.shape[1])
        down = slice(int(top * scale), int((top + tile[0]) * scale))
        across = slice(int(left * scale), int((left + tile[1]) * scale))
        weights = heights[i, down, None] * widths[j, across]
        result[:, :, down, across] += weights.to(found.dtype) * found
    assert result is not None
    return result


def _starts(size: int, tile: int, overlap: int) -> list[int]:
    """Where the tiles begin along a side; the last one ends with the side."""
    return [*range(0, size - tile, tile - overlap), size - tile]


def _weights(size: int, tile: int, overlap: int, scale: Fraction) -> Tensor:
    """The weight of each tile along a side: [tiles, size · scale]; those of a position sum to 1."""
    starts, length = _starts(size, tile, overlap), int(size * scale)
    position = torch.arange(length) + 0.5
    weights = torch.zeros(len(starts), length)
    fade = max(float(overlap * scale), 1e-9)
    for row, start in zip(weights, starts, strict=True):
        begin, end = int(start * scale), int((start + tile) * scale)
        inside = (position > begin) & (position < end)
        rising = ((position - begin) / fade * 2 - 0.5).clamp(0, 1) if begin else 1.0
        falling = ((end - position) / fade * 2 - 0.5).clamp(0, 1) if end < length else 1.0
        row += inside * rising * falling
    return weights / weights.sum(0)


def image_factor(model: BaseVAE) -> int:
    """The sides of an image divided by those of its latent. OptionError if there is no grid."""
    wrong = OptionError("tiles are for images with a latent on a grid of rows and columns")
    if not isinstance(model, EncoderDecoderVAE):
        raise wrong
    grid, sides = model.bottleneck.grid, model.data.spatial_shape
    if len(grid) != 2 or len(sides) != 2:
        raise wrong
    if model.latent_shape[-2:] != grid:
        raise OptionError("tiles are for a latent of one grid, not for codes on several")
    factor = sides[0] // grid[0]
    if sides != (grid[0] * factor, grid[1] * factor):
        raise OptionError(f"a grid of {grid[0]}×{grid[1]} does not divide images of {sides}")
    return factor


def _sizes(model: EncoderDecoderVAE, tile: Size | None, overlap: int | None) -> tuple[Size, int]:
    """The tile and the overlap, checked."""
    grid = model.bottleneck.grid
    tile = (grid[0], grid[1]) if tile is None else tile
    overlap = min(tile) // 2 if overlap is None else overlap
    if min(tile) < 1 or not 0 <= overlap < min(tile):
        raise OptionError(
            f"tiles of {tile[0]}×{tile[1]} positions with an overlap of {overlap}: give an overlap "
            "from 0 to below the smaller side"
        )
    return tile, overlap
