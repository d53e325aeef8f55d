"""VQ-VAE: a codebook of vectors (van den Oord et al. 2017)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaezoo import DataSpec
from vaezoo.distributed import all_gather, all_reduce, rank, world_size
from vaezoo.models.distributions import to_float32

from .codes import CodePosterior
from .grid import GridVAE
from .options import VQOptions
from .quantiser import Quantiser

_DISTANCES_AT_ONCE = 1 << 22
_FEWEST = 1e-6
"""A code that stands for less than this, on average, has no mean that could be told."""


class VQVAE(GridVAE):
    """Each feature vector becomes the nearest vector of a codebook (sections 3.1 and 3.2).

    The decoder's gradient reaches the encoder straight through; the commitment term of its loss
    keeps the encoder near its codes.
    """

    options: VQOptions

    def __init__(self, options: VQOptions, data: DataSpec) -> None:
        super().__init__(options, data, VectorQuantiser(options))


class VectorQuantiser(Quantiser):
    """The codebook, [size, width], and how it learns while it is in training mode.

    With `ema` it is the moving average of the features that it stands for (appendix A.1); with
    `gradient` a parameter, for a loss with a codebook term (equation 3). Either way a code that
    has had no use for `revive_after` steps starts again at a feature vector of the batch, drawn by
    torch's generator. All codes begin as if unused for that long: the first batch seeds them.
    """

    codebook: Tensor
    counts: Tensor
    sums: Tensor
    idle: Tensor

    def __init__(self, options: VQOptions) -> None:
        super().__init__()
        self.size, self.width = options.codes, options.code_dim
        self.decay = options.decay
        self.revive_after = options.revive_after
        self.averages = options.codebook == "ema"
        codebook = torch.randn(self.size, self.width)
        if self.averages:
            self.register_buffer("codebook", codebook)
            # N and m of the appendix: as if each code had stood for itself once.
            self.register_buffer("counts", torch.ones(self.size))
            self.register_buffer("sums", codebook.clone())
        else:
            self.codebook = nn.Parameter(codebook)
        if self.revive_after is not None:
            idle = torch.full((self.size,), self.revive_after - 1)
            self.register_buffer("idle", idle)

    def forward(self, features: Tensor) -> CodePosterior:
        with _full_products(features.device):
            features = to_float32(features)
            codes = self.codes_of(features.detach())
            embedded = self.embed(codes)
            if self.training:
                self._learn(_vectors(features.detach()), codes.flatten())
        return CodePosterior(features, embedded, codes, self)

    def embed(self, codes: Tensor) -> Tensor:
        return F.embedding(codes, self.codebook).movedim(-1, -3)

    @torch.no_grad()
    def codes_of(self, z: Tensor) -> Tensor:
        squares = self.codebook.square().sum(1)
        at_once = max(1, _DISTANCES_AT_ONCE // self.size)
        vectors = _vectors(z)
        # A graph for batches of any size cannot count its parts.
        parts = (vectors,) if torch.compiler.is_exporting() else vectors.split(at_once)
        # |z - e|² less |z|², which is the same for all codes.
        nearest = [
            torch.addmm(squares, part, self.codebook.T, alpha=-2).argmin(1) for part in parts
        ]
        return torch.cat(nearest).view(*z.shape[:-3], *z.shape[-2:])

    @torch.no_grad()
    def _learn(self, vectors: Tensor, codes: Tensor) -> None:
        """vectors: [positions, width]. codes: theirs, [positions]; of this process's examples.

        All processes learn from all of them, and their codebooks stay the same.
        """
        stands_for = codes[:, None] == torch.arange(self.size, device=codes.device)
        counts = all_reduce(stands_for.sum(0))
        if self.averages:
            self.counts.lerp_(counts.to(vectors.dtype), 1 - self.decay)
            sums = all_reduce(stands_for.to(vectors.dtype).T @ vectors)
            self.sums.lerp_(sums, 1 - self.decay)
            means = self.sums / self.counts.clamp(min=_FEWEST)[:, None]
            known = (self.counts > _FEWEST)[:, None]
            self.codebook.copy_(torch.where(known, means, self.codebook))
        if self.revive_after is not None:
            self.idle.add_(1).mul_(counts == 0)
            self._restart(vectors, self.idle >= self.revive_after)

    def _restart(self, vectors: Tensor, dead: Tensor) -> None:
        """Put codes at vectors drawn from the batch. dead: bool [size]."""
        places = self._drawn(vectors)
        self.codebook.copy_(torch.where(dead[:, None], places, self.codebook))
        if self.averages:
            self.sums.copy_(torch.where(dead[:, None], places, self.sums))
            self.counts.masked_fill_(dead, 1.0)
        self.idle.masked_fill_(dead, 0)

    def _drawn(self, vectors: Tensor) -> Tensor:
        """A vector for each code, drawn from those of all processes: [size, width]."""
        n = len(vectors)
        drawn = torch.randint(n * world_size(), (self.size,), device=vectors.device)
        # The first process's draws; each vector from the process that has it.
        here = all_gather(drawn)[: self.size] - n * rank()
        ours = ((here >= 0) & (here < n))[:, None]
        return all_reduce(torch.where(ours, vectors[here.clamp(0, n - 1)], 0.0))


def _vectors(features: Tensor) -> Tensor:
    """[..., width, rows, columns] -> [positions, width]."""
    return features.movedim(-3, -1).flatten(0, -2)


def _full_products(device: torch.device) -> AbstractContextManager[object]:
    """No autocast of matrix products: half precision would take a near code for the nearest."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
