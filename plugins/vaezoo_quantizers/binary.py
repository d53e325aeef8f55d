"""LFQ and BSQ: each channel quantized to its sign (Yu et al. 2023; Zhao et al. 2024)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from vaezoo.errors import OptionError
from vaezoo.models.distributions import to_float32
from vaezoo_discrete.bottleneck import QuantizerBottleneck
from vaezoo_discrete.options import MAX_CODES
from vaezoo_discrete.quantizer import (
    Quantized,
    Quantizer,
    no_autocast,
    squared_distance,
    straight_through,
)

from .entropy import binary_entropy, entropy, mean_over_processes
from .options import BSQOptions, LFQOptions


class LookupFreeBottleneck(QuantizerBottleneck):
    """Channels are replaced by their signs: no codebook is learned or searched (Yu et al. 2023)."""

    def __init__(self, options: LFQOptions, grid: tuple[int, ...]) -> None:
        super().__init__(options, grid, _binary_quantizer(options, grid, spherical=False))


class SphericalBottleneck(QuantizerBottleneck):
    """Unit vectors are replaced by the nearest corner of a cube inscribed in the sphere.

    Zhao et al. (2024), section 3.1.
    """

    def __init__(self, options: BSQOptions, grid: tuple[int, ...]) -> None:
        super().__init__(options, grid, _binary_quantizer(options, grid, spherical=True))


class BinaryQuantizer(Quantizer):
    """Quantizes each channel to ±a by its sign; 0 becomes −a.

    bits: channels of a codebook, which has 2 ** bits codes. Bit i of an index, of value 2 ** i,
        says whether channel i is positive (Yu et al. 2023, equation 4).
    codebooks: how many codebooks the channels are divided into, in their order. The quantized
        features do not depend on it; indices and the entropy of the codes do.
    spherical: features are scaled to unit vectors, and a is 1 / √channels, so that codes are too
        (binary spherical quantization, Zhao et al. 2024, equation 4). Else a is 1 (lookup-free
        quantization, Yu et al. 2023, equation 3).
    temperature: of the soft assignment p(code | u) ∝ exp(−‖u − code‖² / temperature). It is a
        product over bits: bit i is positive with probability σ(4 a u_i / temperature).
    joint_entropy: whether `batch_entropy` is that of whole codes; else it is the sum over bits of
        the entropy of each, an upper bound that costs next to nothing (Zhao et al. 2024,
        equation 11).

    Its losses: `commitment`, |u − sg[codes]|²; `entropy`, H(p(code | u)) in closed form, summed
    over positions; `batch_entropy`, 0-dim: H of the mean of p(code | u) over all positions of the
    batch, times the positions of an example.
    """

    batch_statistics = True

    def __init__(
        self,
        bits: int,
        codebooks: int = 1,
        *,
        spherical: bool = False,
        temperature: float = 0.01,
        joint_entropy: bool = True,
        ndim: int = 2,
    ) -> None:
        super().__init__()
        self.bits, self.codebooks, self.ndim = bits, codebooks, ndim
        self.num_codes, self.code_dim = 2**bits, bits * codebooks
        self.spherical, self.temperature = spherical, temperature
        self.joint_entropy = joint_entropy
        self.amplitude = 1 / math.sqrt(self.code_dim) if spherical else 1.0
        self.values: Tensor
        values = 2 ** torch.arange(bits).view(-1, *[1] * ndim)
        self.register_buffer("values", values, persistent=False)

    def forward(self, features: Tensor) -> Quantized:
        with no_autocast(features.device):
            features = to_float32(features)
            if self.spherical:
                features = F.normalize(features, dim=1)
            codes = torch.where(features > 0, self.amplitude, -self.amplitude)
            losses = {"commitment": squared_distance(features, codes)}
            losses |= self._entropies(features)
        return Quantized(straight_through(features, codes), self.codes_to_indices(codes), losses)

    def _entropies(self, features: Tensor) -> dict[str, Tensor]:
        logits = (4 * self.amplitude / self.temperature) * features.movedim(1, -1)
        positions = math.prod(logits.shape[1:-1])
        probs = logits.sigmoid().unflatten(-1, (self.codebooks, self.bits)).flatten(0, -3)
        if self.joint_entropy:
            of_batch = entropy(mean_over_processes(_mean_joint(probs)))
        else:
            mean = mean_over_processes(probs.mean(0))
            of_batch = entropy(torch.stack([mean, 1 - mean], -1))
        return {
            "entropy": binary_entropy(logits).flatten(1).sum(1),
            "batch_entropy": positions * of_batch.sum(),
        }

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        if self.codebooks == 1:
            indices = indices.unsqueeze(-1 - self.ndim)
        bits = indices.unsqueeze(-1 - self.ndim) // self.values % 2
        signs = (2 * bits - 1).flatten(-2 - self.ndim, -1 - self.ndim)
        return signs * self.amplitude

    def codes_to_indices(self, z: Tensor) -> Tensor:
        bits = (z > 0).unflatten(-1 - self.ndim, (self.codebooks, self.bits))
        indices = (bits * self.values).sum(-1 - self.ndim)
        return indices.squeeze(-1 - self.ndim) if self.codebooks == 1 else indices


def _mean_joint(probs: Tensor) -> Tensor:
    """The mean probability of each code: [n, codebooks, bits] -> [codebooks, 2 ** bits].

    A code's probability is the product of those of its lower and of its upper bits, so the mean is
    a matrix product of two factors with 2 ** (bits / 2) columns each, not n · 2 ** bits values.
    """
    half = probs.shape[-1] // 2
    lower, upper = _outcomes(probs[..., :half]), _outcomes(probs[..., half:])
    return torch.einsum("ncu,ncl->cul", upper, lower).flatten(1) / len(probs)


def _outcomes(probs: Tensor) -> Tensor:
    """Probabilities of all values of independent bits: [..., bits] -> [..., 2 ** bits]."""
    found = probs.new_ones(*probs.shape[:-1], 1)
    for p in probs.unsqueeze(-1).unbind(-2):
        found = torch.cat([found * (1 - p), found * p], -1)
    return found


def _binary_quantizer(
    options: LFQOptions | BSQOptions, grid: tuple[int, ...], spherical: bool
) -> BinaryQuantizer:
    if options.bits % options.codebooks:
        raise OptionError(
            f"--bits {options.bits} do not divide into {options.codebooks} codebooks: give a "
            "multiple of --codebooks"
        )
    bits = options.bits // options.codebooks
    if 2**bits > MAX_CODES:
        raise OptionError(
            f"--bits {options.bits} make codebooks of {2**bits:,} codes, and {MAX_CODES:,} are the "
            "most: give more --codebooks"
        )
    return BinaryQuantizer(
        bits,
        options.codebooks,
        spherical=spherical,
        temperature=options.temperature,
        joint_entropy=options.joint_entropy,
        ndim=len(grid),
    )
