"""The transformer block that the networks over patches and the prior over codes are made of."""

from __future__ import annotations

from torch import Tensor, cat, nn
from torch.nn import functional as F

Cache = tuple[Tensor, Tensor]
"""Keys and values of the previous positions, each [batch, heads, positions, features]."""


class TransformerBlock(nn.Module):
    """Self-attention, then an MLP of four times the width, each x + f(LayerNorm(x)).

    [batch, positions, width] -> the same shape. Vaswani et al. (2017) with the norm first, as in
    Dosovitskiy et al. (2020, equations 2 and 3).

    heads: they divide the width. causal: each position sees itself and those before it only.
    """

    def __init__(self, width: int, heads: int, *, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm = nn.LayerNorm(width)
        self.attention = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.extend(x)[0]

    def extend(self, x: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """As forward, and the keys and values; with a cache, of the position after those in it."""
        heads = self.attention(self.norm(x)).unflatten(2, (3, self.heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
        is_causal = self.causal and cache is None
        if cache is not None:
            key, value = cat([cache[0], key], 2), cat([cache[1], value], 2)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=is_causal)
        x = x + self.project(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(x), (key, value)
