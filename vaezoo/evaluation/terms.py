"""The terms of a loss on held-out data."""

from __future__ import annotations

import torch
from torch import Tensor

from vaezoo.data.batches import Batches
from vaezoo.evaluation.modes import evaluation_mode, seeded
from vaezoo.losses.base import BaseLoss, Context
from vaezoo.model import BaseVAE


def mean_terms(
    model: BaseVAE, loss: BaseLoss, batches: Batches, context: Context, seed: int
) -> dict[str, float]:
    """The objective and its terms in nats per example, each example counted once.

    Draws its noise from `seed`, leaves the generators as they were, and the modes of the modules.
    """
    sums: dict[str, Tensor] = {}
    with evaluation_mode(model, loss), seeded(seed, batches.device), torch.no_grad():
        for batch in batches.ordered():
            output = loss(model, batch, context)
            for name, value in {"objective": output.objective, **output.terms}.items():
                # A term that is one number for the batch counts for each of its examples.
                share = value.float().mean() * len(batch.x)
                sums[name] = sums[name] + share if name in sums else share
    names = list(sums)
    total = torch.stack([sums[name] for name in names]) / len(batches.split)
    return dict(zip(names, total.tolist(), strict=True))
