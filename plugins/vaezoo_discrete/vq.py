"""VQ-VAE: vector quantization by a learned codebook (van den Oord et al. 2017)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaezoo.distributed import all_gather, all_reduce, rank, world_size
from vaezoo.models.distributions import to_float32

from .bottleneck import QuantizerBottleneck
from .options import VQOptions
from .quantizer import Quantized, Quantizer, straight_through

_MAX_DISTANCES = 1 << 22
"""How many distances are held at once."""
_MIN_COUNT = 1e-6
"""A code with a smaller average count keeps its vector: its mean is not known."""


class VQBottleneck(QuantizerBottleneck):
    """Features are replaced by their nearest codes (van den Oord et al. 2017, 3.1 and 3.2).

    The decoder's gradient passes straight through to the encoder; the commitment term of the loss
    keeps the encoder's features near their codes.
    """

    def __init__(self, options: VQOptions, grid: tuple[int, ...]) -> None:
        quantizer = VectorQuantizer(
            options.codes,
            options.code_dim,
            ema=options.codebook == "ema",
            decay=options.decay,
            dead_code_steps=options.dead_code_steps,
            ndim=len(grid),
        )
        super().__init__(options, grid, quantizer)


class VectorQuantizer(Quantizer):
    """Quantizes to the nearest vector of a codebook, [num_codes, code_dim], which it learns.

    ema: in training mode the codebook follows moving averages of the features assigned to each code
        (van den Oord et al. 2017, appendix A.1). Otherwise it is a parameter, trained by the loss
        `codebook` (equation 3).
    decay: of the moving averages, per step.
    dead_code_steps: a code that was not used for so many training steps is reset to a random
        feature vector of the batch. At first all codes count as unused for that long, so the first
        batch initializes them. None: never.

    Its losses: `commitment`, |features - sg[codes]|², and, without ema, `codebook`,
    |sg[features] - codes|².
    """

    codebook: Tensor
    counts: Tensor
    sums: Tensor
    unused_steps: Tensor

    def __init__(
        self,
        num_codes: int,
        code_dim: int,
        *,
        ema: bool = True,
        decay: float = 0.99,
        dead_code_steps: int | None = 100,
        ndim: int = 2,
    ) -> None:
        super().__init__()
        self.ndim = ndim
        self.num_codes, self.code_dim = num_codes, code_dim
        self.ema, self.decay, self.dead_code_steps = ema, decay, dead_code_steps
        codebook = torch.randn(num_codes, code_dim)
        if ema:
            self.register_buffer("codebook", codebook)
            # N and m of the appendix, as if each code had been assigned to itself once.
            self.register_buffer("counts", torch.ones(num_codes))
            self.register_buffer("sums", codebook.clone())
        else:
            self.codebook = nn.Parameter(codebook)
        if dead_code_steps is not None:
            self.register_buffer("unused_steps", torch.full((num_codes,), dead_code_steps - 1))

    def forward(self, features: Tensor) -> Quantized:
        with _no_autocast(features.device):
            features = to_float32(features)
            indices = self.codes_to_indices(features.detach())
            codes = self.indices_to_codes(indices)
            if self.training:
                self._update_codebook(self._vectors(features.detach()), indices.flatten())
        losses = {"commitment": _squared_distance(features, codes.detach())}
        if not self.ema:
            losses["codebook"] = _squared_distance(features.detach(), codes)
        return Quantized(straight_through(features, codes), indices, losses)

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        return F.embedding(indices, self.codebook).movedim(-1, -1 - self.ndim)

    @torch.no_grad()
    def codes_to_indices(self, z: Tensor) -> Tensor:
        squares = self.codebook.square().sum(1)
        vectors = self._vectors(z)
        # A graph that is exported for any batch size cannot split it.
        size = max(1, _MAX_DISTANCES // self.num_codes)
        chunks = (vectors,) if torch.compiler.is_exporting() else vectors.split(size)
        # |z - e|² without |z|², which is the same for all codes.
        nearest = [torch.addmm(squares, v, self.codebook.T, alpha=-2).argmin(1) for v in chunks]
        shape = z.movedim(-1 - self.ndim, -1).shape[:-1]
        return torch.cat(nearest).view(shape)

    def _vectors(self, features: Tensor) -> Tensor:
        """[..., code_dim, *grid] -> [positions, code_dim]."""
        return features.movedim(-1 - self.ndim, -1).flatten(0, -2)

    @torch.no_grad()
    def _update_codebook(self, vectors: Tensor, indices: Tensor) -> None:
        """One step of learning, from this process's vectors, [n, code_dim], and indices, [n].

        Counts and sums run over all processes, so their codebooks stay equal.
        """
        assigned = indices[:, None] == torch.arange(self.num_codes, device=indices.device)
        counts = all_reduce(assigned.sum(0))
        if self.ema:
            self.counts.lerp_(counts.to(vectors.dtype), 1 - self.decay)
            sums = all_reduce(assigned.to(vectors.dtype).T @ vectors)
            self.sums.lerp_(sums, 1 - self.decay)
            means = self.sums / self.counts.clamp(min=_MIN_COUNT)[:, None]
            known = (self.counts > _MIN_COUNT)[:, None]
            self.codebook.copy_(torch.where(known, means, self.codebook))
        if self.dead_code_steps is not None:
            self.unused_steps.add_(1).mul_(counts == 0)
            self._reset_codes(vectors, self.unused_steps >= self.dead_code_steps)

    def _reset_codes(self, vectors: Tensor, dead: Tensor) -> None:
        """Replace dead codes, bool [num_codes], by random vectors of the batch."""
        replacements = self._random_vectors(vectors)
        self.codebook.copy_(torch.where(dead[:, None], replacements, self.codebook))
        if self.ema:
            self.sums.copy_(torch.where(dead[:, None], replacements, self.sums))
            self.counts.masked_fill_(dead, 1.0)
        self.unused_steps.masked_fill_(dead, 0)

    def _random_vectors(self, vectors: Tensor) -> Tensor:
        """A vector for each code, drawn from those of all processes: [num_codes, code_dim]."""
        n = len(vectors)
        drawn = torch.randint(n * world_size(), (self.num_codes,), device=vectors.device)
        # All processes use the draws of rank 0; each contributes the vectors that it holds.
        local = all_gather(drawn)[: self.num_codes] - n * rank()
        is_local = ((local >= 0) & (local < n))[:, None]
        return all_reduce(torch.where(is_local, vectors[local.clamp(0, n - 1)], 0.0))


def _squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Summed over all dimensions but the batch: [batch]."""
    return (a - b).square().flatten(1).sum(1)


def _no_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Turns autocast off: in half precision the nearest code may not be found."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
