"""Multi-scale quantization: residuals over growing resolutions (Tian et al. 2024)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from vaezoo.errors import OptionError
from vaezoo.models.distributions import to_float32
from vaezoo_discrete.bottleneck import QuantizerBottleneck
from vaezoo_discrete.quantizer import (
    Quantized,
    Quantizer,
    no_autocast,
    rotate,
    squared_distance,
    straight_through,
)
from vaezoo_discrete.vq import VectorQuantizer, vector_quantizer
from vaezoo_networks.conv import CONV

from .options import MultiScaleOptions

_MIX = 0.5
"""The part of a convolution in an upsampled grid, beside the grid itself (Tian et al. 2024)."""


class MultiScaleBottleneck(QuantizerBottleneck):
    """Features are replaced by a pyramid of codes, from 1 position to the whole grid.

    The latent is the sequence of all codes, the coarsest first, and the decoder gets their sum.
    """

    expected_failures: ClassVar[Mapping[str, str]] = {
        "gradients": "the convolutions are trained by the term `codebook` of the loss vq alone"
    }

    def __init__(self, options: MultiScaleOptions, grid: tuple[int, ...]) -> None:
        if options.cosine:
            raise OptionError("--cosine is for vq and pq: residuals are no unit vectors")
        quantizer = MultiScaleQuantizer(
            vector_quantizer(options, options.code_dim, ndim=1),
            scale_grids(grid, options.scale_sizes),
            convolutions=options.convolutions,
        )
        super().__init__(options, grid, quantizer)


class MultiScaleQuantizer(Quantizer):
    """Quantizes what coarser scales left, at each scale in turn (Tian et al. 2024, algorithm 1).

    At scale k the residual is averaged down to grids[k], each position is replaced by its nearest
    code, and the codes, upsampled by cubic interpolation and convolved, are taken from the
    residual. The quantized features are the sum over scales (algorithm 2).

    quantizer: of the codes, with ndim 1; all scales share it.
    grids: the size of each scale; the last is the size of the features, which is then fixed.
    convolutions: how many 3-wide convolutions there are, each for neighbouring scales; an upsampled
        grid is half its convolution, half itself. The last scale is not upsampled and has none. 0:
        no convolutions.

    Codes and indices of all scales are one sequence, the coarsest scale first, each row by row:
    [batch, code_dim, length] and [batch, length].

    Its losses, means over scales (as in the authors' code): `commitment`, |features − sg[sum up to
    the scale]|², and `codebook`, |sg[features] − sum up to the scale|², which also trains the
    convolutions; it is absent where there is nothing for it to train.
    """

    def __init__(
        self, quantizer: VectorQuantizer, grids: Sequence[tuple[int, ...]], *, convolutions: int = 4
    ) -> None:
        super().__init__()
        if quantizer.ndim != 1 or quantizer.cosine:
            raise ValueError("multi-scale codes need a quantizer of ndim 1 without cosine")
        self.quantizer, self.grids = quantizer, [tuple(grid) for grid in grids]
        self.num_codes, self.code_dim = quantizer.num_codes, quantizer.code_dim
        self.ndim, self.lengths = 1, [math.prod(grid) for grid in grids]
        space = len(self.grids[-1])
        convolution = CONV[space]
        self.convolutions = nn.ModuleList(
            convolution(self.code_dim, self.code_dim, 3, padding=1)
            for _ in range(min(convolutions, len(grids) - 1))
        )
        for k, grid in enumerate(self.grids[:-1]):
            for i, (small, full) in enumerate(zip(grid, self.grids[-1], strict=True)):
                # Not saved: they follow from the sizes.
                down, up = area_matrix(full, small), cubic_matrix(small, full)
                self.register_buffer(f"down_{k}_{i}", down, persistent=False)
                self.register_buffer(f"up_{k}_{i}", up, persistent=False)

    def codes_grid(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        return (sum(self.lengths),)

    def forward(self, features: Tensor) -> Quantized:
        with no_autocast(features.device):
            features = to_float32(features)
            fixed = features.detach()
            total = torch.zeros_like(fixed)
            commitments, trained, vectors, indices = [], [], [], []
            for k, grid in enumerate(self.grids):
                small = self._resize(fixed - total.detach(), k, "down").flatten(2)
                codes, found = self.quantizer.assign(small)
                total = total + self._expand(codes.unflatten(2, grid), k)
                commitments.append(squared_distance(features, total.detach()))
                trained.append(squared_distance(fixed, total))
                vectors.append(self.quantizer.to_vectors(small))
                indices.append(found)
            if self.training:
                of_vectors = torch.cat([found.flatten() for found in indices])
                self.quantizer.learn(torch.cat(vectors), of_vectors)
        losses = {"commitment": torch.stack(commitments).mean(0)}
        if len(self.convolutions) or not self.quantizer.ema:
            losses["codebook"] = torch.stack(trained).mean(0)
        if self.quantizer.estimator == "rotation":
            quantized = rotate(features, total.detach(), 1)
        else:
            quantized = straight_through(features, total.detach())
        return Quantized(quantized, torch.cat(indices, 1), losses)

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        return self.quantizer.indices_to_codes(indices)

    def codes_to_indices(self, z: Tensor) -> Tensor:
        return self.quantizer.codes_to_indices(z)

    def codes_to_features(self, codes: Tensor) -> Tensor:
        """The sum over scales; also of the first scales only, for a coarser approximation."""
        batch, scales = codes.shape[:-2], self._split(codes.flatten(0, -3))
        found = [self._expand(scale, k, fixed=True) for k, scale in enumerate(scales)]
        return torch.stack(found).sum(0).unflatten(0, batch)

    def latent(self, output: Quantized) -> Tensor:
        codes = self.indices_to_codes(output.indices).detach()
        # The last scale, which nothing is done to, carries the gradient.
        rest = (output.quantized - self.codes_to_features(codes).detach()).flatten(2)
        last = self.lengths[-1]
        return torch.cat([codes[..., :-last], codes[..., -last:] + rest], -1)

    def _split(self, codes: Tensor) -> list[Tensor]:
        """Sequences as grids, for as many scales as they have: [n, code_dim, length]."""
        ends = list(itertools.accumulate(self.lengths))
        if codes.shape[2] not in ends:
            raise ValueError(f"{codes.shape[2]} codes are not those of the first scales: {ends}")
        lengths = self.lengths[: ends.index(codes.shape[2]) + 1]
        parts = codes.split(lengths, 2)
        return [part.unflatten(2, grid) for part, grid in zip(parts, self.grids, strict=False)]

    def _expand(self, codes: Tensor, k: int, fixed: bool = False) -> Tensor:
        """What the codes of scale k add to the features: [n, code_dim, *grids[k]] -> the size.

        fixed: no gradient for the convolutions. The decoder's does not train them: as a part of
        what is quantized they follow the features (their term is `codebook`).
        """
        grid = self._resize(codes, k, "up")
        if k == len(self.grids) - 1 or not self.convolutions:
            return grid
        layer = self.convolutions[k * len(self.convolutions) // (len(self.grids) - 1)]
        parameters = {name: p.detach() if fixed else p for name, p in layer.named_parameters()}
        return (1 - _MIX) * grid + _MIX * functional_call(layer, parameters, (grid,))

    def _resize(self, grid: Tensor, k: int, way: str) -> Tensor:
        """Resize each dimension by its matrix; the last scale has the size of the features."""
        if k == len(self.grids) - 1:
            return grid
        for i in range(len(self.grids[k])):
            matrix = self.get_buffer(f"{way}_{k}_{i}")
            grid = (grid.movedim(2 + i, -1) @ matrix.T).movedim(-1, 2 + i)
        return grid


def scale_grids(grid: tuple[int, ...], scales: tuple[int, ...] | None) -> list[tuple[int, ...]]:
    """The size of each scale of a grid.

    scales: the longest side at each scale, rising to that of the grid; None: 1, 2, 4, … and the
    whole grid. Other sides are in proportion, and at least 1. OptionError for other numbers.
    """
    longest = max(grid)
    if scales is None:
        scales = (*(2**k for k in range(longest.bit_length()) if 2**k < longest), longest)
    rising = all(a < b for a, b in itertools.pairwise(scales))
    if not rising or scales[-1] != longest:
        raise OptionError(
            f"--scale-sizes {','.join(map(str, scales))} must rise to {longest}, the longest side "
            f"of the grid of features, {'×'.join(map(str, grid))}"
        )
    return [tuple(max(1, round(side * scale / longest)) for side in grid) for scale in scales]


def area_matrix(full: int, small: int) -> Tensor:
    """The mean over equal parts of a line, [small, full]: as `F.interpolate` by area."""
    return F.interpolate(torch.eye(full)[None, None], size=(small, full), mode="area")[0, 0]


def cubic_matrix(small: int, full: int) -> Tensor:
    """Cubic interpolation of a line, [full, small]: as `F.interpolate`, bicubic, in each dimension.

    Matrices work for signals and volumes too, and their gradient is the same each time on a GPU.
    """
    eye = torch.eye(small)[None, None]
    return F.interpolate(eye, size=(full, small), mode="bicubic", align_corners=False)[0, 0]
