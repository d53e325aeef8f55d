"""A loss and its terms, averaged over a data split."""

from __future__ import annotations

import torch
from torch import Tensor

from vaezoo.data.loader import BatchLoader
from vaezoo.distributed import all_reduce, local_only
from vaezoo.losses.base import BaseLoss, StepContext
from vaezoo.models.base import BaseVAE
from vaezoo.runtime.device import evaluation_mode, seeded


def evaluate_loss(
    model: BaseVAE,
    loss: BaseLoss,
    batches: BatchLoader,
    context: StepContext,
    seed: int,
    together: bool = False,
) -> dict[str, float]:
    """The loss and its terms in nats per example, each example counted once.

    The random numbers of a batch follow from `seed` and the number of the batch, so that the
    result does not depend on the number of processes. Random generators and the training mode are
    restored. together: every process computes all batches, as a sharded model needs; each batch
    still counts in one process only.
    """
    sums: dict[str, Tensor] = {}
    with evaluation_mode(model, loss), torch.no_grad():
        for number, batch, counts in batches.sharded(all_to_all=together):
            with seeded(seed + number, batches.device), local_only():
                output = loss(model, batch, context)
            for name, value in {"loss": output.loss, **output.terms}.items():
                # A 0-dim term counts for each example of the batch.
                total = value.float().mean() * len(batch.x)
                total = total if counts else torch.zeros_like(total)
                sums[name] = sums[name] + total if name in sums else total
    means = all_reduce(torch.stack(list(sums.values()))) / len(batches.split)
    return dict(zip(sums, means.tolist(), strict=True))
