"""Networks that give the velocity of a flow at a time: a residual MLP for vectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_FREQUENCIES = 32
_MAX_FREQUENCY = 1000.0


class Conditioning(nn.Module):
    """What the velocity depends on beside the point: the time, and the class if there are some.

    As in Ho et al. (2020), the time enters by sines and cosines; a class has an embedding, which is
    added to it (Dhariwal & Nichol 2021). The last embedding stands for "no class".

    t: [n] or [1], in [0, 1]. y: class numbers, [n], -1 for no class; None if none is known.
    Returns [n or 1, width].
    """

    frequencies: Tensor

    def __init__(self, width: int, num_classes: int = 0) -> None:
        super().__init__()
        exponents = torch.linspace(0, 1, _FREQUENCIES)
        frequencies = math.pi * _MAX_FREQUENCY**exponents
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.time = nn.Sequential(
            nn.Linear(2 * _FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.classes = nn.Embedding(num_classes + 1, width) if num_classes else None

    def forward(self, t: Tensor, y: Tensor | None) -> Tensor:
        angles = t[:, None] * self.frequencies
        embedding: Tensor = self.time(torch.cat([angles.sin(), angles.cos()], 1))
        if self.classes is None:
            return F.silu(embedding)
        none = self.classes.num_embeddings - 1
        y = torch.full_like(t, none, dtype=torch.int64) if y is None else y
        return F.silu(embedding + self.classes(torch.where(y < 0, none, y)))


class MLPVelocity(nn.Module):
    """A residual MLP: [n, dim] at time t -> the velocity, [n, dim]. At first the velocity is 0."""

    def __init__(self, dim: int, width: int, layers: int, num_classes: int = 0) -> None:
        super().__init__()
        self.conditioning = Conditioning(width, num_classes)
        self.first = nn.Linear(dim, width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, dim)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        condition, h = self.conditioning(t, y), self.first(x)
        for block in self.blocks:
            h = block(h, condition)
        velocity: Tensor = self.last(self.norm(h))
        return velocity


class _Block(nn.Module):
    """h + MLP(norm(h), condition)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = nn.Linear(width, width)
        self.condition = nn.Linear(width, width, bias=False)
        self.second = nn.Linear(width, width)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        hidden = F.silu(self.first(self.norm(h)) + self.condition(condition))
        return h + self.second(hidden)
