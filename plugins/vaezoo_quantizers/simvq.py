"""SimVQ: a frozen codebook behind one trained linear map (Zhu et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
from vaezoo_discrete.vq import nearest_codes

from .options import SimVQOptions


class LinearCodebookBottleneck(QuantizerBottleneck):
    """Features are replaced by the nearest vectors of a linearly mapped frozen codebook."""

    expected_failures: ClassVar[Mapping[str, str]] = {
        "gradients": "the linear map is trained by the term `codebook` of the loss vq alone"
    }

    def __init__(self, options: SimVQOptions, grid: tuple[int, ...]) -> None:
        quantizer = LinearCodebookQuantizer(
            options.codes, options.code_dim, estimator=options.estimator, ndim=len(grid)
        )
        super().__init__(options, grid, quantizer)


class LinearCodebookQuantizer(Quantizer):
    """Quantizes to the nearest of the vectors  W c,  c from a frozen Gaussian codebook.

    Zhu et al. (2024), equation 6. The linear map W, [code_dim, code_dim] without a bias, is
    trained: so a step moves all codes, also those that no feature is near to.

    estimator: how the decoder's gradient reaches the features: `straight_through`, or `rotation`.

    Its losses: `commitment`, |features − sg[codes]|², and `codebook`, |sg[features] − codes|².
    """

    def __init__(
        self,
        num_codes: int,
        code_dim: int,
        *,
        estimator: Literal["straight_through", "rotation"] = "straight_through",
        ndim: int = 2,
    ) -> None:
        super().__init__()
        self.num_codes, self.code_dim, self.ndim = num_codes, code_dim, ndim
        self.estimator = estimator
        self.frozen: Tensor
        self.register_buffer("frozen", torch.randn(num_codes, code_dim) / code_dim**0.5)
        self.map = nn.Linear(code_dim, code_dim, bias=False)

    @property
    def codes(self) -> Tensor:
        """The code vectors, [num_codes, code_dim]."""
        return self.map(self.frozen)

    def forward(self, features: Tensor) -> Quantized:
        with no_autocast(features.device):
            features = to_float32(features)
            indices = self.codes_to_indices(features.detach())
            codes = self.indices_to_codes(indices)
        losses = {
            "commitment": squared_distance(features, codes.detach()),
            "codebook": squared_distance(features.detach(), codes),
        }
        if self.estimator == "rotation":
            return Quantized(rotate(features, codes, 1), indices, losses)
        return Quantized(straight_through(features, codes), indices, losses)

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        # Maps the codes of the batch only: the gradient is the same as through all of them.
        return self.map(F.embedding(indices, self.frozen)).movedim(-1, -1 - self.ndim)

    @torch.no_grad()
    def codes_to_indices(self, z: Tensor) -> Tensor:
        vectors = z.movedim(-1 - self.ndim, -1)
        return nearest_codes(vectors.flatten(0, -2), self.codes).view(vectors.shape[:-1])
