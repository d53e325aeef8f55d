"""PQ: product quantization, the channels in groups with a codebook each (Jégou et al. 2011)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vaezoo.errors import OptionError
from vaezoo_discrete.bottleneck import QuantizerBottleneck
from vaezoo_discrete.quantizer import Quantized, Quantizer
from vaezoo_discrete.vq import VectorQuantizer, vector_quantizer

from .options import PQOptions


class ProductBottleneck(QuantizerBottleneck):
    """Groups of channels are replaced by their nearest codes (Jégou et al. 2011, section II.B)."""

    def __init__(self, options: PQOptions, grid: tuple[int, ...]) -> None:
        if options.code_dim % options.codebooks:
            raise OptionError(
                f"--code-dim {options.code_dim} channels do not divide into {options.codebooks} "
                "equal groups: give a multiple of --codebooks"
            )
        size = options.code_dim // options.codebooks
        parts = [vector_quantizer(options, size, ndim=len(grid)) for _ in range(options.codebooks)]
        super().__init__(options, grid, ProductQuantizer(parts))


class ProductQuantizer(Quantizer):
    """Quantizes each group of channels by itself: num_codes ** codebooks combinations.

    parts: vector quantizers of equal size, one for each group, in the order of the channels.

    Its losses: those of the parts, added up.
    """

    def __init__(self, parts: Sequence[VectorQuantizer]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.codebooks, self.num_codes = len(parts), parts[0].num_codes
        self.ndim, self.code_dim = parts[0].ndim, sum(part.code_dim for part in parts)

    def _each(self) -> list[VectorQuantizer]:
        return [part for part in self.parts if isinstance(part, VectorQuantizer)]

    def forward(self, features: Tensor) -> Quantized:
        pairs = zip(self._each(), self._groups(features), strict=True)
        each: list[Quantized] = [part(group) for part, group in pairs]
        losses = {
            name: torch.stack([output.losses[name] for output in each]).sum(0)
            for name in each[0].losses
        }
        indices = torch.stack([output.indices for output in each], 1)
        return Quantized(torch.cat([output.quantized for output in each], 1), indices, losses)

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        each = zip(self._each(), indices.unbind(-1 - self.ndim), strict=True)
        return torch.cat([part.indices_to_codes(found) for part, found in each], -1 - self.ndim)

    def codes_to_indices(self, z: Tensor) -> Tensor:
        each = zip(self._each(), self._groups(z), strict=True)
        return torch.stack([part.codes_to_indices(group) for part, group in each], -1 - self.ndim)

    def _groups(self, features: Tensor) -> tuple[Tensor, ...]:
        return features.split(self.code_dim // self.codebooks, -1 - self.ndim)
