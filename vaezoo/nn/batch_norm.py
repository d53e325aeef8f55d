"""Batch norm in models: whether a module has it, and how to keep its running statistics fixed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def has_batch_norm(module: nn.Module) -> bool:
    """Whether a layer of the module normalises by the batch: such a batch has two examples."""
    return any(isinstance(layer, _BatchNorm) for layer in module.modules())


@contextmanager
def freeze_bn_stats(*networks: nn.Module) -> Iterator[None]:
    """Inside, batch norm of these networks normalises by the batch and updates no statistics.

    For a network that a training phase uses and does not train: its running statistics are
    buffers, which a forward pass changes. Gradients flow through as always. In evaluation mode
    nothing is different.
    """
    norms = [
        layer
        for network in networks
        for layer in network.modules()
        if isinstance(layer, _BatchNorm) and layer.track_running_stats
    ]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
