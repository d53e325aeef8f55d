"""What likelihoods of 8-bit levels share: levels of values, bits per dimension, Gumbel noise."""

from __future__ import annotations

import torch
from torch import Tensor

from vaezoo import Likelihood
from vaezoo.models.distributions import to_float32

LEVELS = 256


class LevelsLikelihood(Likelihood):
    """Base of likelihoods that give each of the 256 levels a probability, not a density."""

    normalised_on = ("unit",)
    is_discrete = True


def to_levels(value: Tensor, levels: int = LEVELS) -> Tensor:
    """The nearest level of values in [0, 1], a whole number from 0, as a float."""
    return (to_float32(value) * (levels - 1)).round().clamp(0, levels - 1)


def gumbel(logits: Tensor) -> Tensor:
    """Standard Gumbel noise: the largest of logits plus noise is a draw of the softmax."""
    uniform = torch.rand_like(logits).clamp(min=torch.finfo(logits.dtype).tiny)
    return -torch.log(-torch.log(uniform).clamp(max=-torch.finfo(logits.dtype).eps / 2))
