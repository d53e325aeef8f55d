"""The terms of a loss on held-out data."""

from __future__ import annotations

import torch
from torch import Tensor

from vaezoo.data.batches import Batches
from vaezoo.losses.base import BaseLoss, Context
from vaezoo.model import BaseVAE


@torch.no_grad()
def mean_terms(
    model: BaseVAE, loss: BaseLoss, batches: Batches, context: Context, seed: int
) -> dict[str, float]:
    """The objective and its terms in nats per example, each example counted once.

    Draws its noise from `seed`, leaves the generators as they were, and the modes of the modules.
    """
    modes = [(module, module.training) for root in (model, loss) for module in root.modules()]
    model.eval()
    loss.eval()
    sums: dict[str, Tensor] = {}
    with torch.random.fork_rng(devices=cuda_devices(batches.device)):
        torch.manual_seed(seed)
        for batch in batches.ordered():
            output = loss(model, batch, context)
            for name, value in {"objective": output.objective, **output.terms}.items():
                # A term that is one number for the batch counts for each of its examples.
                share = value.double().mean() * len(batch.x)
                sums[name] = sums[name] + share if name in sums else share
    for module, mode in modes:
        module.training = mode
    names = list(sums)
    total = torch.stack([sums[name] for name in names]) / len(batches.split)
    return dict(zip(names, total.tolist(), strict=True))


def cuda_devices(device: torch.device) -> list[torch.device]:
    """The devices whose generators a computation on `device` draws from, besides the CPU's."""
    return [device] if device.type == "cuda" else []
