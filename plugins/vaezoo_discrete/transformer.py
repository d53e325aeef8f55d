"""A small autoregressive transformer over codes: the prior that is fitted after training."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Cache = tuple[Tensor, Tensor]
"""Keys and values of the positions so far, each [batch, heads, positions, features]."""

_BATCH = 64
_LR = 5e-3
_COLDEST = 1e-4
"""Temperatures below this are taken for it: the likeliest code each time, and nothing overflows."""
_LOGITS_AT_ONCE = 1 << 24
"""What `log_prob` holds of them, in evaluation: 64 MiB."""


class CodeTransformer(nn.Module):
    """p(codes) = Π_i p(code_i | the codes before it), causal self-attention (Vaswani et al. 2017).

    It starts out uniform, exactly: its last layer is 0. Its parameters ask for no gradient but
    while `fit` runs, so no training phase of the autoencoder has them.

    codes: how many codes there are. length: positions of a grid, row by row. width: features.
    """

    def __init__(self, codes: int, length: int, width: int, layers: int) -> None:
        super().__init__()
        self.length = length
        self.start = nn.Parameter(0.02 * torch.randn(width))
        self.position = nn.Parameter(0.02 * torch.randn(length, width))
        self.embedding = nn.Embedding(codes, width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, codes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.requires_grad_(False)

    def forward(self, codes: Tensor) -> Tensor:
        """The logits of each code given those before it: [batch, length] -> [..., codes]."""
        start = self.start.expand(len(codes), 1, -1)
        x = torch.cat([start, self.embedding(codes[:, :-1])], 1) + self.position
        for block in self.blocks:
            x, _ = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits

    def log_prob(self, codes: Tensor) -> Tensor:
        """log p in nats. codes: int64 [batch, length]. Returns [batch]."""
        at_once = max(1, _LOGITS_AT_ONCE // (self.length * self.head.out_features))
        parts = codes.split(len(codes) if torch.is_grad_enabled() else at_once)
        return torch.cat([self._log_prob(part) for part in parts])

    def _log_prob(self, codes: Tensor) -> Tensor:
        logits = self(codes).float().transpose(1, 2)
        return -F.cross_entropy(logits, codes, reduction="none").sum(1)

    @torch.no_grad()
    def sample(self, n: int, temperature: float = 1.0) -> Tensor:
        """n draws, [n, length]. temperature: divides the logits; 0 takes the likeliest code."""
        codes: list[Tensor] = []
        caches: list[Cache | None] = [None] * len(self.blocks)
        x = self.start.expand(n, 1, -1)
        for position in range(self.length):
            x = x + self.position[position]
            for i, block in enumerate(self.blocks):
                x, caches[i] = block(x, caches[i])
            logits = self.head(self.norm(x[:, 0])).float() / max(temperature, _COLDEST)
            codes.append(torch.multinomial(logits.softmax(1), 1))
            x = self.embedding(codes[-1])
        return torch.cat(codes, 1)

    @torch.enable_grad()
    def fit(self, codes: Tensor, steps: int) -> None:
        """Maximise the likelihood of codes, [examples, length], in steps of 64 drawn from them.

        Adam with a cosine schedule; torch's generator draws.
        """
        self.requires_grad_(True)
        optimizer = torch.optim.Adam(self.parameters(), lr=_LR, betas=(0.9, 0.95))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _rise_and_fall(steps))
        for _ in range(steps):
            drawn = torch.randint(len(codes), (_BATCH,), device=codes.device)
            loss = -self.log_prob(codes[drawn].long()).mean() / self.length
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        self.requires_grad_(False)


class _Block(nn.Module):
    """Attention, then two dense layers; each adds to what it was given, normalised before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = math.gcd(width, 4)
        self.norm = nn.LayerNorm(width)
        self.attention = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.dense = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """x: [batch, positions, width]; with a cache, one position that sees all before it."""
        heads = (
            self.attention(self.norm(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )
        query, key, value = heads.unbind(0)
        if cache is not None:
            key, value = torch.cat([cache[0], key], 2), torch.cat([cache[1], value], 2)
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=cache is None)
        x = x + self.project(seen.transpose(1, 2).flatten(2))
        return x + self.dense(x), (key, value)


def _rise_and_fall(steps: int) -> Callable[[int], float]:
    """The learning rate's factor: up for a twentieth of the steps, then a cosine down to 0."""
    rise = max(1, steps // 20)

    def factor(step: int) -> float:
        return min((step + 1) / rise, 0.5 * (1.0 + math.cos(math.pi * step / steps)))

    return factor
