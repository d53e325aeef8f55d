"""IBQ: index backpropagation, a gradient for every code (Shi et al. 2024)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaezoo.models.distributions import to_float32
from vaezoo_discrete.bottleneck import QuantizerBottleneck
from vaezoo_discrete.quantizer import Quantized, Quantizer, no_autocast, squared_distance
from vaezoo_discrete.vq import nearest_codes

from .entropy import entropy, in_parts, mean_over_processes
from .options import IBQOptions


class IndexBottleneck(QuantizerBottleneck):
    """Features are replaced by the codes of largest inner product; all codes are trained."""

    def __init__(self, options: IBQOptions, grid: tuple[int, ...]) -> None:
        quantizer = IndexQuantizer(
            options.codes, options.code_dim, temperature=options.temperature, ndim=len(grid)
        )
        super().__init__(options, grid, quantizer)


class IndexQuantizer(Quantizer):
    """Quantizes to the code of largest inner product, with the gradient of the softmax over codes.

    Shi et al. (2024), equation 5: with p = softmax(C z), the codebook C is multiplied by
    one_hot(argmax p) + p − sg[p]. The gradient of the decoder reaches the features through p, and
    every code through its probability; it does not pass straight through.

    temperature: of the probabilities that the entropies are of, softmax(C z / temperature). None:
        no entropies.

    Its losses: `commitment`, |z − sg[codes]|²; `codebook`, |sg[z] − codes|²; `index`, the same
    distance with the gradient of the quantized features, as the authors' code has it; `entropy` and
    `batch_entropy`: see `BinaryQuantizer`.
    """

    def __init__(
        self, num_codes: int, code_dim: int, *, temperature: float | None = 0.01, ndim: int = 2
    ) -> None:
        super().__init__()
        self.num_codes, self.code_dim, self.ndim = num_codes, code_dim, ndim
        self.temperature = temperature
        self.batch_statistics = temperature is not None
        self.codebook = nn.Parameter(torch.randn(num_codes, code_dim) / code_dim**0.5)

    def forward(self, features: Tensor) -> Quantized:
        with no_autocast(features.device):
            features = to_float32(features)
            vectors = features.movedim(1, -1)
            found = in_parts(self._assign, vectors.flatten(0, -2), self.codebook)
            index, soft = (torch.cat(parts) for parts in list(zip(*found, strict=True))[:2])
            indices = index.view(vectors.shape[:-1])
            codes = self.indices_to_codes(indices)
            soft = soft.view(vectors.shape).movedim(-1, 1)
            quantized = codes + soft - soft.detach()
            losses = {
                "commitment": squared_distance(features, codes.detach()),
                "codebook": squared_distance(features.detach(), codes),
                "index": squared_distance(features, quantized),
            }
            if self.temperature is not None:
                each = torch.cat([part[2] for part in found]).view(len(features), -1)
                mean = torch.stack([part[3] for part in found]).sum(0) / each.numel()
                losses["entropy"] = each.sum(1)
                losses["batch_entropy"] = each.shape[1] * entropy(mean_over_processes(mean))
        return Quantized(quantized, indices, losses)

    def _assign(self, vectors: Tensor, codes: Tensor) -> tuple[Tensor, ...]:
        """Indices [n], p C [n, code_dim], and with a temperature entropies [n] and Σ p [codes].

        The gradient of p C is that of p alone; that of C is passed by the chosen codes.
        """
        logits = vectors @ codes.T
        soft = logits.softmax(1) @ codes.detach()
        if self.temperature is None:
            return logits.argmax(1), soft
        log_p = (logits / self.temperature).log_softmax(1)
        p = log_p.exp()
        return logits.argmax(1), soft, -(p * log_p).sum(1), p.sum(0)

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        return F.embedding(indices, self.codebook).movedim(-1, -1 - self.ndim)

    @torch.no_grad()
    def codes_to_indices(self, z: Tensor) -> Tensor:
        """Indices of the codes nearest to z; `forward` takes those of largest inner product."""
        vectors = z.movedim(-1 - self.ndim, -1)
        return nearest_codes(vectors.flatten(0, -2), self.codebook).view(vectors.shape[:-1])
