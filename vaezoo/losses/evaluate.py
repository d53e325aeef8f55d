"""The terms of a loss on held-out data."""

from __future__ import annotations

import torch
from torch import Tensor

from vaezoo.data.loader import BatchLoader
from vaezoo.distributed import all_reduce, local_only
from vaezoo.losses.base import BaseLoss, StepContext
from vaezoo.models.base import BaseVAE
from vaezoo.runtime.seed import evaluation_mode, seeded


def evaluate_loss(
    model: BaseVAE,
    loss: BaseLoss,
    batches: BatchLoader,
    context: StepContext,
    seed: int,
    together: bool = False,
) -> dict[str, float]:
    """The objective and its terms in nats per example, each example counted once.

    The noise of a batch follows from `seed` and its number: processes that share the batches find
    what one would. The generators and the modes of the modules are left as they were.
    together: every process sees all batches, as a model that is spread over them must; each counts
    in one of them still.
    """
    sums: dict[str, Tensor] = {}
    with evaluation_mode(model, loss), torch.no_grad():
        for number, batch, counts in batches.sharded(all_to_all=together):
            with seeded(seed + number, batches.device), local_only():
                output = loss(model, batch, context)
            for name, value in {"loss": output.loss, **output.terms}.items():
                # A term that is one number for the batch counts for each of its examples.
                share = value.float().mean() * len(batch.x)
                share = share if counts else torch.zeros_like(share)
                sums[name] = sums[name] + share if name in sums else share
    names = list(sums)
    means = all_reduce(torch.stack([sums[name] for name in names])) / len(batches.split)
    return dict(zip(names, means.tolist(), strict=True))
