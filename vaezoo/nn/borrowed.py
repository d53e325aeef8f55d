"""Using a network in a phase that does not train it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def freeze_bn_stats(*networks: nn.Module) -> Iterator[None]:
    """Inside, batch norm of these networks goes by the batch and remembers nothing of it.

    A phase changes only what is its own. Its gradients are taken with respect to its own
    parameters anyway; this keeps the running statistics of other networks, which are buffers and
    move in a forward pass, to the phase that trains them. Gradients flow through as always, and in
    evaluation nothing is different.
    """
    norms = [
        part
        for network in networks
        for part in network.modules()
        if isinstance(part, _BatchNorm) and part.track_running_stats
    ]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
