"""The distributions of models whose latent is a grid of codes, and how many codes they use."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.types import _size

if TYPE_CHECKING:
    from .quantiser import Quantiser
    from .transformer import CodeTransformer

_ONE = torch.Size()
"""The shape of a single sample."""


class CodePosterior(Distribution):
    """q(z|x) that is sure of one code at each position (van den Oord et al. 2017, equation 1).

    `rsample` gives the vectors of the codes, with the gradient of the features they were made of:
    straight through. Its entropy over codes is 0, so KL(q ‖ p) is -log p(codes), and
    log p(x|codes) + log p(codes) is a lower bound of log p(x), in nats.

    features: what the codes were made of, [batch, width, rows, columns]. embedded: the vectors of
    the codes, same shape. codes: int64 [batch, rows, columns].
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    has_rsample = True

    def __init__(
        self, features: Tensor, embedded: Tensor, codes: Tensor, quantiser: Quantiser
    ) -> None:
        self.features = features
        self.embedded = embedded
        self.codes = codes
        self.quantiser = quantiser
        super().__init__(features.shape[:1], features.shape[1:], validate_args=False)

    @property
    def code_count(self) -> int:
        """How many codes there are."""
        return self.quantiser.size

    @property
    def mean(self) -> Tensor:
        return self.embedded

    def rsample(self, sample_shape: _size = _ONE) -> Tensor:
        z = self.features + (self.embedded - self.features).detach()
        return z.expand(*sample_shape, *z.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """0 for its own codes, -inf for any others."""
        same = (self.quantiser.codes_of(value) == self.codes).flatten(-2).all(-1)
        return torch.where(same, 0.0, -math.inf)

    def kl_divergence(self, prior: CodePrior, z: Tensor) -> Tensor:
        return -prior.log_prob_of_codes(self.codes)


class CodePrior(Distribution):
    """p(z) over the vectors of a grid of codes: every code alike, or as a network has learned.

    uniform: the network is not asked then, but for its device. temperature: divides the network's
    logits in `sample`; `log_prob` is that of temperature 1.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        quantiser: Quantiser,
        grid: tuple[int, int],
        network: CodeTransformer,
        *,
        uniform: bool = False,
        temperature: float = 1.0,
    ) -> None:
        self.quantiser = quantiser
        self.grid = grid
        self.network = network
        self.uniform = uniform
        self.temperature = temperature
        event = torch.Size((quantiser.width, *grid))
        super().__init__(torch.Size(), event, validate_args=False)

    def with_temperature(self, temperature: float) -> CodePrior:
        """The same with its choices sharper or blunter; at 0 the likeliest code each time."""
        return CodePrior(
            self.quantiser,
            self.grid,
            self.network,
            uniform=self.uniform,
            temperature=temperature,
        )

    @torch.no_grad()
    def sample(self, sample_shape: _size = _ONE) -> Tensor:
        shape = torch.Size(sample_shape)
        n, length = shape.numel(), math.prod(self.grid)
        if self.uniform:
            device = self.network.start.device
            codes = torch.randint(self.quantiser.size, (n, length), device=device)
        else:
            codes = self.network.sample(n, self.temperature)
        return self.quantiser.embed(codes.view(*shape, *self.grid))

    def log_prob(self, value: Tensor) -> Tensor:
        return self.log_prob_of_codes(self.quantiser.codes_of(value))

    def log_prob_of_codes(self, codes: Tensor) -> Tensor:
        """In nats. codes: int64 [*batch, rows, columns]. Returns [*batch]."""
        flat = codes.flatten(-2)
        if self.uniform:
            each = -flat.shape[-1] * math.log(self.quantiser.size)
            return torch.full(flat.shape[:-1], each, device=flat.device)
        log_p = self.network.log_prob(flat.view(-1, flat.shape[-1]))
        return log_p.view(flat.shape[:-1])


def code_usage(codes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Perplexity and usage of codes out of `size`, of all that are given together: two numbers.

    Perplexity is exp(entropy) of how often each occurs, from 1, when all are the same, to `size`,
    when all occur alike. Usage is the share of the `size` codes that occur.
    """
    flat = codes.flatten()
    # Whole numbers add up to the same sum in any order, so a GPU counts alike each time.
    counts = torch.zeros(size, dtype=torch.int64, device=codes.device)
    counts = counts.scatter_add_(0, flat, torch.ones_like(flat))
    perplexity = torch.special.entr(counts / flat.numel()).sum().exp()
    return perplexity, (counts > 0).float().mean()
