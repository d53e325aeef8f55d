"""RVQ: residual vector quantization, codes that are added up (Zeghidour et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vaezoo.errors import OptionError
from vaezoo.models.distributions import to_float32
from vaezoo_discrete.bottleneck import QuantizerBottleneck
from vaezoo_discrete.quantizer import Quantized, Quantizer, no_autocast
from vaezoo_discrete.vq import VectorQuantizer, vector_quantizer

from .options import RVQOptions


class ResidualBottleneck(QuantizerBottleneck):
    """Features are replaced by a sum of codes, each of which quantizes what the others left.

    The latent holds the codes of all codebooks, and the decoder gets their sum.
    """

    def __init__(self, options: RVQOptions, grid: tuple[int, ...]) -> None:
        if options.cosine:
            raise OptionError("--cosine is for vq and pq: residuals are no unit vectors")
        levels = [
            vector_quantizer(options, options.code_dim, ndim=len(grid))
            for _ in range(1 if options.shared_codebooks else options.codebooks)
        ]
        quantizer = ResidualQuantizer(
            levels, options.codebooks, quantizer_dropout=options.quantizer_dropout
        )
        super().__init__(options, grid, quantizer)


class ResidualQuantizer(Quantizer):
    """q = q₁ + … + q_n, where q_i is the code nearest to  features − q₁ − … − q_(i−1).

    Zeghidour et al. (2021), algorithm 1; Lee et al. (2022), equation 2, with `shared` codebooks.
    The decoder's gradient reaches the features once, by the estimator of the first level.

    levels: vector quantizers of equal size; one of them is shared by all codebooks.
    codebooks: how many codes are added. By default the number of levels.
    quantizer_dropout: the probability that an example is quantized by its first n codebooks only, n
        uniform in 1 … codebooks (Kumar et al. 2023, section 3.3), in training mode. So each prefix
        of its codes decodes to an approximation. Its indices are still those of all codebooks.

    Its losses: `commitment` and `codebook`, each a sum over the codebooks that an example uses.
    """

    def __init__(
        self,
        levels: Sequence[VectorQuantizer],
        codebooks: int | None = None,
        *,
        quantizer_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        first = levels[0]
        self.codebooks = len(levels) if codebooks is None else codebooks
        if len(levels) not in (1, self.codebooks):
            raise ValueError(f"{len(levels)} levels for {self.codebooks} codebooks")
        if any(level.cosine for level in levels):
            raise ValueError("residuals are no unit vectors: give levels without cosine")
        self.levels = nn.ModuleList(levels)
        self.ndim, self.num_codes = first.ndim, first.num_codes
        self.code_dim = self.codebooks * first.code_dim
        self.quantizer_dropout = quantizer_dropout

    @property
    def dim(self) -> int:
        return self.code_dim // self.codebooks

    @property
    def is_shared(self) -> bool:
        return len(self.levels) < self.codebooks

    def level(self, codebook: int) -> VectorQuantizer:
        """The quantizer of a codebook, counted from 0."""
        found = self.levels[0 if self.is_shared else codebook]
        assert isinstance(found, VectorQuantizer)
        return found

    def forward(self, features: Tensor) -> Quantized:
        with no_autocast(features.device):
            features = to_float32(features)
            kept = self._kept(features)
            residual, total = features, torch.zeros_like(features)
            losses: dict[str, Tensor] = {}
            residuals, indices = [], []
            for i in range(self.codebooks):
                codes, found = self.level(i).assign(residual)
                for name, value in self.level(i).losses(residual, codes).items():
                    losses[name] = losses.get(name, 0.0) + value * kept[i]
                residuals.append(self.level(i).to_vectors(residual.detach()))
                indices.append(found)
                codes = codes.detach()
                total = total + codes * kept[i].view(-1, *[1] * (features.dim() - 1))
                residual = residual - codes
            if self.training:
                self._learn(residuals, [found.flatten() for found in indices])
        quantized = self.level(0).pass_gradient(features, total)
        return Quantized(quantized, torch.stack(indices, 1), losses)

    def _kept(self, features: Tensor) -> Tensor:
        """1 where an example uses a codebook, else 0: [codebooks, batch]."""
        batch, device = len(features), features.device
        if not (self.training and self.quantizer_dropout):
            return torch.ones(self.codebooks, batch, device=device)
        dropped = torch.rand(batch, device=device) < self.quantizer_dropout
        used = torch.randint(1, self.codebooks + 1, (batch,), device=device)
        used = torch.where(dropped, used, self.codebooks)
        return (torch.arange(self.codebooks, device=device)[:, None] < used).float()

    def _learn(self, residuals: list[Tensor], indices: list[Tensor]) -> None:
        if self.is_shared:
            self.level(0).learn(torch.cat(residuals), torch.cat(indices))
            return
        for i, (vectors, found) in enumerate(zip(residuals, indices, strict=True)):
            self.level(i).learn(vectors, found)

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        """Codes of indices, also of the first few codebooks only."""
        each = indices.unbind(-1 - self.ndim)
        codes = [self.level(i).indices_to_codes(found) for i, found in enumerate(each)]
        return torch.cat(codes, -1 - self.ndim)

    def codes_to_indices(self, z: Tensor) -> Tensor:
        each = z.split(self.dim, -1 - self.ndim)
        found = [self.level(i).codes_to_indices(codes) for i, codes in enumerate(each)]
        return torch.stack(found, -1 - self.ndim)

    def codes_to_features(self, codes: Tensor) -> Tensor:
        return codes.unflatten(-1 - self.ndim, (-1, self.dim)).sum(-2 - self.ndim)

    def latent(self, output: Quantized) -> Tensor:
        codes = self.indices_to_codes(output.indices).detach()
        # The first code carries the gradient, and what quantizer dropout takes from the sum.
        rest = output.quantized - self.codes_to_features(codes)
        first, others = codes.split([self.dim, self.code_dim - self.dim], 1)
        return torch.cat([first + rest, others], 1)
