"""MADE (Germain et al. 2015): an MLP whose output i depends only on the inputs before i."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MaskedLinear(nn.Linear):
    """A linear layer with a fixed mask on its weights. mask: bool [out, in]."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.mask: Tensor
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


class MADE(nn.Module):
    """Masked autoencoder for distribution estimation (Germain et al. 2015, equations 8 and 9).

    [..., n] with a context [..., c] -> [..., outputs, n]. Output i depends on the inputs before i
    and on the whole context. The order is from first to last, or reversed.

    Each hidden unit has a degree from 0 to n - 1 and depends on the inputs up to that position.
    Units of degree 0 depend on the context alone, so the first output has a hidden layer too, and n
    may be 1.
    """

    def __init__(
        self, n: int, context: int, hidden: Sequence[int], outputs: int, reverse: bool = False
    ) -> None:
        super().__init__()
        self.outputs = outputs
        order = torch.arange(1, n + 1)
        order = order.flip(0) if reverse else order
        self.order: Tensor
        self.register_buffer("order", order, persistent=False)
        degrees = [order, *(torch.arange(width) % n for width in hidden)]
        layers: list[nn.Module] = []
        for before, after in pairwise(degrees):
            layers += [MaskedLinear(before[None, :] <= after[:, None]), nn.ELU()]
        last = MaskedLinear(degrees[-1][None, :] < order.repeat(outputs)[:, None])
        self.context = nn.Linear(context, hidden[0], bias=False)
        self.first, self.rest = layers[0], nn.Sequential(*layers[1:], last)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        flat: Tensor = self.rest(self.first(x) + self.context(context))
        return flat.unflatten(-1, (self.outputs, -1))
