"""The categorical likelihood over 256 levels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.types import _size

from vaezoo.models.distributions import BaseDistribution, to_float32

from .levels import LEVELS, LevelsLikelihood, gumbel, to_levels


class CategoricalLevels(BaseDistribution):
    """Independent values k / (levels - 1) with a probability for each level k.

    logits: [batch, channels, levels, *spatial].
    """

    def __init__(self, logits: Tensor) -> None:
        shape = logits.shape
        super().__init__(shape[:1], (shape[1], *shape[3:]))
        self.logits = logits
        self.level_dim = 2 - logits.dim()
        """The dimension of the levels, from the end."""

    def log_prob(self, value: Tensor) -> Tensor:
        index = to_levels(value, self.logits.shape[2]).long().unsqueeze(self.level_dim)
        log_probs = torch.log_softmax(self.logits, 2)
        log_probs = log_probs.expand(
            *index.shape[: index.dim() - log_probs.dim()], *log_probs.shape
        )
        chosen = log_probs.gather(self.level_dim, index).squeeze(self.level_dim)
        first = value.dim() - len(self.event_shape)
        return chosen.flatten(first).sum(first)

    @property
    def mean(self) -> Tensor:
        values = torch.linspace(0, 1, self.logits.shape[2], device=self.logits.device)
        values = values.to(self.logits.dtype).view(-1, *[1] * (self.logits.dim() - 3))
        return (torch.softmax(self.logits, 2) * values).sum(2).clamp(0.0, 1.0)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        with torch.no_grad():
            logits = self.logits.expand(*sample_shape, *self.logits.shape)
            index = (logits + gumbel(logits)).argmax(self.level_dim)
            return index.to(logits.dtype) / (self.logits.shape[2] - 1)


class CategoricalLikelihood(LevelsLikelihood):
    """Each value is one of 256 levels, with a probability of its own for each.

    The decoder gives 256 logits for each value (van den Oord et al. 2016, section 2): the largest
    of the likelihoods in parameters and memory, and the most flexible for one value.
    """

    @property
    def param_shape(self) -> tuple[int, ...]:
        return (LEVELS * self.data.channels, *self.data.spatial_shape)

    def forward(self, params: Tensor) -> Distribution:
        return CategoricalLevels(to_float32(params).unflatten(1, (-1, LEVELS)))
