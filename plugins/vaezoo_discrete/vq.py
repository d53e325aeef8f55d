"""VQ-VAE: vector quantization by a learned codebook (van den Oord et al. 2017)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaezoo.distributed import all_gather, all_reduce, rank, world_size
from vaezoo.models.distributions import to_float32

from .bottleneck import QuantizerBottleneck
from .options import VQOptions
from .quantizer import (
    Quantized,
    Quantizer,
    no_autocast,
    rotate,
    squared_distance,
    straight_through,
)

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
        quantizer = vector_quantizer(options, options.code_dim, ndim=len(grid))
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

    estimator: how the decoder's gradient reaches the features: `straight_through`, or `rotation`
        (Fifty et al. 2024).
    cosine: features and codes are unit vectors, so the nearest code has the largest cosine (Yu et
        al. 2021, section 3.2). The quantized features are unit vectors too.
    kmeans_steps: of Lloyd's algorithm on the first batch in training mode, whose means then start
        the codebook. 0: no such start.

    Its losses: `commitment`, |features - sg[codes]|², and, without ema, `codebook`,
    |sg[features] - codes|².
    """

    codebook: Tensor
    counts: Tensor
    sums: Tensor
    unused_steps: Tensor
    started: Tensor

    def __init__(
        self,
        num_codes: int,
        code_dim: int,
        *,
        ema: bool = True,
        decay: float = 0.99,
        dead_code_steps: int | None = 100,
        ndim: int = 2,
        estimator: Literal["straight_through", "rotation"] = "straight_through",
        cosine: bool = False,
        kmeans_steps: int = 0,
    ) -> None:
        super().__init__()
        self.ndim = ndim
        self.num_codes, self.code_dim = num_codes, code_dim
        self.ema, self.decay, self.dead_code_steps = ema, decay, dead_code_steps
        self.estimator, self.cosine, self.kmeans_steps = estimator, cosine, kmeans_steps
        codebook = torch.randn(num_codes, code_dim)
        if ema:
            codebook = F.normalize(codebook, dim=1) if cosine else codebook
            self.register_buffer("codebook", codebook)
            # N and m of the appendix, as if each code had been assigned to itself once.
            self.register_buffer("counts", torch.ones(num_codes))
            self.register_buffer("sums", codebook.clone())
        else:
            self.codebook = nn.Parameter(codebook)
        if dead_code_steps is not None:
            self.register_buffer("unused_steps", torch.full((num_codes,), dead_code_steps - 1))
        if kmeans_steps:
            self.register_buffer("started", torch.tensor(False))
        self._was_started = False

    @property
    def codes(self) -> Tensor:
        """The code vectors, [num_codes, code_dim]."""
        if not self.cosine:
            return self.codebook
        # Its gradient needs the codebook as it was, and `learn` replaces dead codes in place.
        codebook = self.codebook if self.ema else self.codebook.clone()
        return F.normalize(codebook, dim=1)

    def forward(self, features: Tensor) -> Quantized:
        with no_autocast(features.device):
            features = self.prepare(features)
            codes, indices = self.assign(features)
            if self.training:
                self.learn(self.to_vectors(features.detach()), indices.flatten())
        return Quantized(self.pass_gradient(features, codes), indices, self.losses(features, codes))

    def prepare(self, features: Tensor) -> Tensor:
        """Features in float32, as they are compared with the codes."""
        features = to_float32(features)
        return F.normalize(features, dim=-1 - self.ndim) if self.cosine else features

    def assign(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Nearest codes of prepared features, like them, and their indices, [batch, *grid]."""
        if self.kmeans_steps and self.training and not self._is_started():
            self._start(self.to_vectors(features.detach()))
        indices = self.codes_to_indices(features.detach())
        return self.indices_to_codes(indices), indices

    def losses(self, features: Tensor, codes: Tensor) -> dict[str, Tensor]:
        """The terms of features and their codes, [batch] each."""
        losses = {"commitment": squared_distance(features, codes.detach())}
        if not self.ema:
            losses["codebook"] = squared_distance(features.detach(), codes)
        return losses

    def pass_gradient(self, features: Tensor, codes: Tensor) -> Tensor:
        """The value of codes, with a gradient for the features as `estimator` says."""
        if self.estimator == "rotation":
            return rotate(features, codes, -1 - self.ndim)
        return straight_through(features, codes)

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        return F.embedding(indices, self.codes).movedim(-1, -1 - self.ndim)

    @torch.no_grad()
    def codes_to_indices(self, z: Tensor) -> Tensor:
        shape = z.movedim(-1 - self.ndim, -1).shape[:-1]
        return nearest_codes(self.to_vectors(z), self.codes).view(shape)

    def to_vectors(self, features: Tensor) -> Tensor:
        """[..., code_dim, *grid] -> [positions, code_dim]."""
        return features.movedim(-1 - self.ndim, -1).flatten(0, -2)

    @torch.no_grad()
    def learn(self, vectors: Tensor, indices: Tensor) -> None:
        """One step of learning, from this process's vectors, [n, code_dim], and indices, [n].

        Counts and sums run over all processes, so their codebooks stay equal.
        """
        if not self.ema and self.dead_code_steps is None:
            return
        counts, sums = _totals(vectors, indices, self.num_codes, with_sums=self.ema)
        counts = all_reduce(counts)
        if self.ema:
            self.counts.lerp_(counts.to(vectors.dtype), 1 - self.decay)
            self.sums.lerp_(all_reduce(sums), 1 - self.decay)
            means = self.sums / self.counts.clamp(min=_MIN_COUNT)[:, None]
            means = F.normalize(means, dim=1) if self.cosine else means
            known = (self.counts > _MIN_COUNT)[:, None]
            self.codebook.copy_(torch.where(known, means, self.codebook))
        if self.dead_code_steps is not None:
            self.unused_steps.add_(1).mul_(counts == 0)
            self._reset_codes(vectors, self.unused_steps >= self.dead_code_steps)

    def _is_started(self) -> bool:
        """Whether k-means has run. The buffer is read until it says so, and then no more."""
        if not self._was_started:
            self._was_started = bool(self.started)
        return self._was_started

    @torch.no_grad()
    def _start(self, vectors: Tensor) -> None:
        """Start the codebook by Lloyd's algorithm on the vectors of all processes."""
        self.codebook.copy_(self._random_vectors(vectors, distinct=True))
        for _ in range(self.kmeans_steps):
            indices = nearest_codes(vectors, self.codes)
            counts, sums = _totals(vectors, indices, self.num_codes)
            counts, sums = all_reduce(counts), all_reduce(sums)
            means = sums / counts.clamp(min=1)[:, None]
            means = F.normalize(means, dim=1) if self.cosine else means
            self.codebook.copy_(torch.where(counts[:, None] > 0, means, self.codebook))
        if self.ema:
            self.sums.copy_(self.codebook)
            self.counts.fill_(1.0)
        if self.dead_code_steps is not None:
            self.unused_steps.zero_()
        self.started.fill_(True)

    def _reset_codes(self, vectors: Tensor, dead: Tensor) -> None:
        """Replace dead codes, bool [num_codes], by random vectors of the batch."""
        replacements = self._random_vectors(vectors)
        self.codebook.copy_(torch.where(dead[:, None], replacements, self.codebook))
        if self.ema:
            self.sums.copy_(torch.where(dead[:, None], replacements, self.sums))
            self.counts.masked_fill_(dead, 1.0)
        self.unused_steps.masked_fill_(dead, 0)

    def _random_vectors(self, vectors: Tensor, distinct: bool = False) -> Tensor:
        """A vector for each code, drawn from those of all processes: [num_codes, code_dim].

        distinct: no vector twice, where there are as many vectors as codes.
        """
        n = len(vectors)
        if distinct and n * world_size() >= self.num_codes:
            drawn = torch.randperm(n * world_size(), device=vectors.device)[: self.num_codes]
        else:
            drawn = torch.randint(n * world_size(), (self.num_codes,), device=vectors.device)
        # All processes use the draws of rank 0; each contributes the vectors that it holds.
        local = all_gather(drawn)[: self.num_codes] - n * rank()
        is_local = ((local >= 0) & (local < n))[:, None]
        return all_reduce(torch.where(is_local, vectors[local.clamp(0, n - 1)], 0.0))


def vector_quantizer(options: VQOptions, code_dim: int, *, ndim: int) -> VectorQuantizer:
    """A quantizer of these options, with codes of another size than theirs."""
    return VectorQuantizer(
        options.codes,
        code_dim,
        ema=options.codebook == "ema",
        decay=options.decay,
        dead_code_steps=options.dead_code_steps,
        ndim=ndim,
        estimator=options.estimator,
        cosine=options.cosine,
        kmeans_steps=options.kmeans_steps,
    )


@torch.no_grad()
def nearest_codes(vectors: Tensor, codes: Tensor) -> Tensor:
    """Indices of the codes with the smallest Euclidean distance; the first of equal ones.

    vectors: [n, dim], codes: [num_codes, dim], both float32 -> int64 [n]. Distances are computed in
    parts of 4 million, so memory does not grow with n · num_codes.
    """
    squares = codes.square().sum(1)
    # A graph that is exported for any batch size cannot split it.
    size = max(1, _MAX_DISTANCES // len(codes))
    chunks = (vectors,) if torch.compiler.is_exporting() else vectors.split(size)
    # |z - e|² without |z|², which is the same for all codes.
    return torch.cat([torch.addmm(squares, v, codes.T, alpha=-2).argmin(1) for v in chunks])


def _totals(
    vectors: Tensor, indices: Tensor, num_codes: int, with_sums: bool = True
) -> tuple[Tensor, Tensor]:
    """How many vectors each code has, int64 [num_codes], and their sums, [num_codes, dim]."""
    counts = torch.zeros(num_codes, dtype=torch.int64, device=indices.device)
    counts.scatter_add_(0, indices, torch.ones_like(indices))
    if not with_sums:
        return counts, vectors
    # The gradient of a look-up always adds in the same order. With several threads index_put_ does
    # not on a CPU, nor does index_add_ on a GPU.
    return counts, torch.ops.aten.embedding_dense_backward(vectors, indices, num_codes, -1, False)
