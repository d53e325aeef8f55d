"""An autoregressive transformer over code indices: the prior that is fitted after training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaezoo.runtime import report_progress
from vaezoo_samplers.fitting import warmup_cosine
from vaezoo_transformers.block import Cache, TransformerBlock

_BATCH_SIZE = 64
_LR = 5e-3
_MIN_TEMPERATURE = 1e-4
"""Lower temperatures are raised to it: it takes the most likely code, and nothing overflows."""
_MAX_LOGITS = 1 << 24
"""How many logits `log_prob` holds at once in evaluation: 64 MiB."""


class CodeTransformer(nn.Module):
    """p(indices) = Π_i p(index_i | the indices before it), by causal self-attention.

    As in Vaswani et al. (2017). At first it is exactly uniform: its last layer is 0. Its parameters
    require a gradient only while `fit` runs, so no training phase of the autoencoder has them.

    sections: of each codebook, the number of positions: those of a grid row by row, all positions
    of the first codebook, then those of the next. Equal indices of two codebooks are different
    codes: each codebook has its own embeddings and its own part of the last layer. length: of all
    together. width: embedding size.
    num_classes: of a model p(indices | class), whose embedding is added to the start; 0 for none.
    Class numbers y are [batch], -1 for an unknown class; None if all are unknown.
    """

    codebook: Tensor

    def __init__(
        self,
        num_codes: int,
        sections: Sequence[int],
        width: int,
        layers: int,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        self.num_codes, self.sections, self.length = num_codes, tuple(sections), sum(sections)
        # The codebook of each position. Not saved: it follows from the sections.
        self.register_buffer("codebook", torch.tensor(self._codebooks()), persistent=False)
        self.start = nn.Parameter(0.02 * torch.randn(width))
        self.position = nn.Parameter(0.02 * torch.randn(self.length, width))
        self.embedding = nn.Embedding(len(sections) * num_codes, width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        heads = math.gcd(width, 4)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, heads, causal=True) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, len(sections) * num_codes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.classes = nn.Embedding(num_classes + 1, width) if num_classes else None
        self.requires_grad_(False)

    def _codebooks(self) -> list[int]:
        """The number of the codebook of each position."""
        return [number for number, size in enumerate(self.sections) for _ in range(size)]

    def _start(self, n: int, y: Tensor | None) -> Tensor:
        """What stands before the first index: [n, 1, width]."""
        start = self.start.expand(n, 1, -1)
        if self.classes is None:
            return start
        unknown = self.classes.num_embeddings - 1
        y = torch.full((n,), -1, device=start.device) if y is None else y
        return start + self.classes(torch.where(y < 0, unknown, y))[:, None]

    def forward(self, indices: Tensor, y: Tensor | None = None) -> Tensor:
        """Logits of each index given those before it: [batch, length] -> [..., num_codes]."""
        start = self._start(len(indices), y)
        codes = indices + self.num_codes * self.codebook
        x = torch.cat([start, self.embedding(codes[:, :-1])], 1) + self.position
        for block in self.blocks:
            x = block(x)
        parts = self.norm(x).split(self.sections, 1)
        return torch.cat([self._logits(part, i) for i, part in enumerate(parts)], 1)

    def _logits(self, x: Tensor, codebook: int) -> Tensor:
        """Logits of a codebook's indices: [..., width] -> [..., num_codes]."""
        if len(self.sections) == 1:
            return self.head(x)
        rows = slice(codebook * self.num_codes, (codebook + 1) * self.num_codes)
        return F.linear(x, self.head.weight[rows], self.head.bias[rows])

    def log_prob(self, indices: Tensor, y: Tensor | None = None) -> Tensor:
        """log p in nats: int64 [batch, length] -> [batch]."""
        size = max(1, _MAX_LOGITS // (self.length * self.num_codes))
        size = len(indices) if torch.is_grad_enabled() else size
        parts = indices.split(size)
        labels = [None] * len(parts) if y is None else y.split(size)
        return torch.cat([self._log_prob(*pair) for pair in zip(parts, labels, strict=True)])

    def _log_prob(self, indices: Tensor, y: Tensor | None) -> Tensor:
        logits = self(indices, y).float().transpose(1, 2)
        return -F.cross_entropy(logits, indices, reduction="none").sum(1)

    @torch.no_grad()
    def sample(self, n: int, temperature: float = 1.0, y: Tensor | None = None) -> Tensor:
        """n samples, [n, length]. temperature: divides the logits; 0 takes the most likely."""
        indices: list[Tensor] = []
        caches: list[Cache | None] = [None] * len(self.blocks)
        x = self._start(n, y)
        for position, codebook in enumerate(self._codebooks()):
            x = x + self.position[position]
            for i, block in enumerate(self.blocks):
                assert isinstance(block, TransformerBlock)
                x, caches[i] = block.extend(x, caches[i])
            logits = self._logits(self.norm(x[:, 0]), codebook).float()
            probs = (logits / max(temperature, _MIN_TEMPERATURE)).softmax(1)
            indices.append(torch.multinomial(probs, 1))
            x = self.embedding(indices[-1] + codebook * self.num_codes)
        return torch.cat(indices, 1)

    @torch.enable_grad()
    def fit(
        self, indices: Tensor, steps: int, y: Tensor | None = None, label_dropout: float = 0.0
    ) -> None:
        """Maximise the likelihood of indices, [examples, length], in steps of 64 random examples.

        Adam with a warm-up and a cosine schedule. Uses torch's global generator. label_dropout: the
        fraction of examples whose class is taken as unknown.
        """
        self.requires_grad_(True)
        optimizer = torch.optim.Adam(self.parameters(), lr=_LR, betas=(0.9, 0.95))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warmup_cosine(steps, 0.05))
        for step in range(steps):
            report_progress("fitting the prior, step", step, steps)
            batch = torch.randint(len(indices), (_BATCH_SIZE,), device=indices.device)
            labels = None
            if y is not None:
                dropped = torch.rand(_BATCH_SIZE, device=indices.device) < label_dropout
                labels = torch.where(dropped, -1, y[batch])
            loss = -self.log_prob(indices[batch].long(), labels).mean() / self.length
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        self.requires_grad_(False)
