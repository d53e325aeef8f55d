"""Posterior and prior of models whose latent is a grid of codes."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.types import _size

from vaezoo.models.bottleneck import Codebook
from vaezoo.models.distributions import BaseDistribution, Delta

from .quantizer import Quantized, Quantizer
from .transformer import CodeTransformer


class CodePosterior(BaseDistribution):
    """q(z|x) with all its mass on one code at each position (van den Oord et al. 2017, equation 1).

    With several codebooks z holds the code vectors of all of them, and indices those of each.

    `rsample` has the straight-through gradient; `mean` gives the same code vectors without it. The
    entropy is 0, so KL(q ‖ p) is -log p(indices), and log p(x|codes) + log p(indices) is a lower
    bound of log p(x), in nats.

    output: of the quantizer for a batch.
    """

    has_rsample = True

    def __init__(self, output: Quantized, quantizer: Quantizer) -> None:
        self.indices, self.losses = output.indices, output.losses
        self.quantized = quantizer.latent(output)
        self.quantizer = quantizer
        self.num_codes, self.codebooks = quantizer.num_codes, quantizer.codebooks
        self.sections = quantizer.sections
        super().__init__(self.quantized.shape[:1], self.quantized.shape[1:])

    @property
    def mean(self) -> Tensor:
        return self.quantizer.indices_to_codes(self.indices)

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        return self.quantized.expand(*sample_shape, *self.quantized.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """0 for its own codes, -inf for all others."""
        same = (
            (self.quantizer.codes_to_indices(value) == self.indices)
            .flatten(-(self.indices.dim() - 1))
            .all(-1)
        )
        return torch.where(same, 0.0, -math.inf)

    def kl_divergence(self, prior: CodePrior, z: Tensor) -> Tensor:
        if not isinstance(prior, CodePrior):
            raise NotImplementedError
        return -prior.log_prob_indices(self.indices)


class SoftPosterior(Delta):
    """q(z|x) with all its mass on a mixture of codes: a continuous latent without a rate.

    assignments: indices of the likeliest codes. losses: of the quantizer.
    """

    def __init__(self, output: Quantized, quantizer: Quantizer) -> None:
        super().__init__(output.quantized, output.quantized.dim() - 1)
        self.assignments, self.losses = output.indices, output.losses
        self.codebook_size, self.codebooks = quantizer.num_codes, quantizer.codebooks
        self.sections = quantizer.sections


class CodePrior(BaseDistribution):
    """p(z) over the code vectors of a grid: uniform, or by an autoregressive network.

    codebook: maps indices to code vectors. grid: the spatial size of the codes. like: a tensor on
    the device. network: gives p(indices), flattened: all positions of the first codebook, row by
    row, then those of the next; None for a uniform prior.
    temperature: divides the network's logits in `sample`; `log_prob` is at temperature 1.
    y: class numbers, [n], of a network that takes them; the batch shape is then [n].
    """

    def __init__(
        self,
        codebook: Codebook,
        grid: tuple[int, ...],
        like: Tensor,
        network: CodeTransformer | None = None,
        *,
        temperature: float = 1.0,
        y: Tensor | None = None,
    ) -> None:
        self.y = y
        self.codebook, self.grid, self.network = codebook, grid, network
        self.indices_shape = indices_shape(codebook, (codebook.code_dim, *grid))
        self.like, self.temperature = like, temperature
        super().__init__(() if y is None else y.shape, (codebook.code_dim, *grid))

    def with_temperature(self, temperature: float) -> CodePrior:
        """The prior with its logits divided by `temperature`; 0 takes the most likely code."""
        known = (self.codebook, self.grid, self.like, self.network)
        return CodePrior(*known, temperature=temperature, y=self.y)

    @torch.no_grad()
    def sample(self, sample_shape: _size = ()) -> Tensor:
        shape = torch.Size(sample_shape) + self.batch_shape
        n, length = shape.numel(), math.prod(self.indices_shape)
        if self.network is None:
            size, device = (n, length), self.like.device
            indices = torch.randint(self.codebook.num_codes, size, device=device)
        else:
            indices = self.network.sample(n, self.temperature, self._labels(shape))
        return self.codebook.indices_to_codes(indices.view(*shape, *self.indices_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        return self.log_prob_indices(self.codebook.codes_to_indices(value))

    def log_prob_indices(self, indices: Tensor) -> Tensor:
        """log p in nats: int64 [*batch, (codebooks,) *grid] -> [*batch]."""
        flat = indices.flatten(-len(self.indices_shape))
        if self.network is None:
            log_p = -flat.shape[-1] * math.log(self.codebook.num_codes)
            return torch.full(flat.shape[:-1], log_p, device=flat.device)
        labels = self._labels(flat.shape[:-1])
        return self.network.log_prob(flat.reshape(-1, flat.shape[-1]), labels).view(flat.shape[:-1])

    def _labels(self, shape: _size) -> Tensor | None:
        """The classes of samples of this shape, flattened."""
        return None if self.y is None else self.y.to(self.like.device).expand(shape).reshape(-1)


def indices_shape(codebook: Codebook, latent_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the indices of a latent: [codebooks, *grid], without `codebooks` if it is 1."""
    return (*((codebook.codebooks,) if codebook.codebooks > 1 else ()), *latent_shape[1:])


def codebook_sections(codebook: Codebook, latent_shape: tuple[int, ...]) -> tuple[int, ...]:
    """How many of the flattened indices belong to each codebook: see `Quantizer.sections`."""
    own: tuple[int, ...] = getattr(codebook, "sections", ())
    return own or (math.prod(latent_shape[1:]),) * codebook.codebooks
