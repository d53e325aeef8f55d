"""A masked network: each output sees only the inputs that come before it in a certain order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MaskedLinear(nn.Linear):
    """A linear layer some of whose weights are 0 and stay so. allowed: bool [out, in]."""

    def __init__(self, allowed: Tensor) -> None:
        super().__init__(allowed.shape[1], allowed.shape[0])
        self.allowed: Tensor
        self.register_buffer("allowed", allowed, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.allowed, self.bias)


class MADE(nn.Module):
    """Masked autoencoder for distribution estimation (Germain et al. 2015, equations 8 and 9).

    [..., n] with a context [..., c] -> [..., outputs, n], where output i knows the inputs that
    come before i, and all of the context. The order is from first to last, or reversed.

    A hidden unit has a degree from 0 to n - 1, given out in turn, and sees the inputs that are not
    past it: one of degree 0 sees the context alone, so that the first output has a hidden layer
    too, and so that n may be 1.
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
