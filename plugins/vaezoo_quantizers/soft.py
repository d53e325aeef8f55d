"""SoftVQ: a softmax-weighted mean of codes, continuous latents (Chen et al. 2024)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaezoo import Bottleneck
from vaezoo.errors import OptionError
from vaezoo.models.distributions import to_float32
from vaezoo_discrete.distributions import SoftPosterior
from vaezoo_discrete.quantizer import Quantized, Quantizer, no_autocast
from vaezoo_discrete.vq import nearest_codes

from .entropy import entropy, in_parts, mean_over_processes
from .options import SoftVQOptions


class SoftBottleneck(Bottleneck):
    """Features are replaced by a mean of codes; the latents are continuous.

    As an autoencoder without noise it has no rate and no ELBO. A sampler for continuous latents,
    fitted after training, generates: `gaussian_mixture`, for example.
    """

    options: SoftVQOptions

    def __init__(self, options: SoftVQOptions, grid: tuple[int, ...]) -> None:
        if not grid:
            raise OptionError("codes need a network with a grid of features")
        super().__init__(options, grid)
        self.quantizer = SoftQuantizer(
            options.codes, options.code_dim, temperature=options.temperature, ndim=len(grid)
        )
        self.num_params = options.code_dim
        self.latent_shape = (options.code_dim, *grid)

    def forward(self, params: Tensor) -> SoftPosterior:
        return SoftPosterior(self.quantizer(params), self.quantizer)


class SoftQuantizer(Quantizer):
    """The mean of the codes, weighted by p = softmax(−‖u − C‖² / temperature).

    Chen et al. (2024), equation 4. Features u and codes C are unit vectors. All of it is
    differentiable, so that features and codes learn from the decoder's loss itself.

    Its losses: `entropy` and `batch_entropy`: see `BinaryQuantizer`. Its indices are those of the
    likeliest codes, and `indices_to_codes` gives these codes, not the means.
    """

    batch_statistics = True

    def __init__(
        self, num_codes: int, code_dim: int, *, temperature: float = 0.14, ndim: int = 2
    ) -> None:
        super().__init__()
        self.num_codes, self.code_dim, self.ndim = num_codes, code_dim, ndim
        self.temperature = temperature
        self.codebook = nn.Parameter(torch.randn(num_codes, code_dim))

    @property
    def codes(self) -> Tensor:
        """The code vectors, unit vectors, [num_codes, code_dim]."""
        return F.normalize(self.codebook, dim=1)

    def forward(self, features: Tensor) -> Quantized:
        with no_autocast(features.device):
            vectors = F.normalize(to_float32(features), dim=1).movedim(1, -1)
            found = in_parts(self._assign, vectors.flatten(0, -2), self.codes)
            index, means, each = (torch.cat(part) for part in list(zip(*found, strict=True))[:3])
            mean = torch.stack([part[3] for part in found]).sum(0) / len(each)
            each = each.view(len(features), -1)
            losses = {
                "entropy": each.sum(1),
                "batch_entropy": each.shape[1] * entropy(mean_over_processes(mean)),
            }
        quantized = means.view(vectors.shape).movedim(-1, 1)
        return Quantized(quantized, index.view(vectors.shape[:-1]), losses)

    def _assign(self, vectors: Tensor, codes: Tensor) -> tuple[Tensor, ...]:
        """Indices [n], means of codes [n, code_dim], entropies [n], and Σ p [codes]."""
        # ‖u − c‖² = 2 − 2 uᵀc for unit vectors, and the softmax does not see the 2.
        logits = (2 / self.temperature) * (vectors @ codes.T)
        log_p = logits.log_softmax(1)
        p = log_p.exp()
        return logits.argmax(1), p @ codes, -(p * log_p).sum(1), p.sum(0)

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        return F.embedding(indices, self.codes).movedim(-1, -1 - self.ndim)

    @torch.no_grad()
    def codes_to_indices(self, z: Tensor) -> Tensor:
        vectors = z.movedim(-1 - self.ndim, -1)
        return nearest_codes(vectors.flatten(0, -2), self.codes).view(vectors.shape[:-1])
