"""Entropies of soft assignments to codes, for the penalty that spreads a model over its codes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vaezoo.distributed import all_reduce, world_size

_MAX_PROBABILITIES = 1 << 22
"""How many probabilities are held at once; those of more are computed again for the gradient."""


def entropy(probs: Tensor) -> Tensor:
    """−Σ p log p over the last dimension, in nats; its gradient is finite where p is 0."""
    return -(probs * probs.clamp(min=torch.finfo(probs.dtype).tiny).log()).sum(-1)


def binary_entropy(logits: Tensor) -> Tensor:
    """The entropy of a bit with these logits, in nats."""
    return F.softplus(logits) - logits * logits.sigmoid()


def mean_over_processes(probs: Tensor) -> Tensor:
    """The mean over equal batches of all processes, with its gradient."""
    return all_reduce(probs) / world_size()


def in_parts(
    function: Callable[[Tensor, Tensor], tuple[Tensor, ...]], vectors: Tensor, codes: Tensor
) -> list[tuple[Tensor, ...]]:
    """function(some vectors, codes) for all vectors, in parts that fit in memory.

    With several parts only their results are kept, and the gradient computes each part again.
    """
    parts = vectors.split(max(1, _MAX_PROBABILITIES // len(codes)))
    if len(parts) == 1:
        return [function(vectors, codes)]
    return [
        checkpoint(function, part, codes, use_reentrant=False, preserve_rng_state=False)
        for part in parts
    ]
