"""Keep the running statistics of batch norm fixed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def freeze_bn_stats(*networks: nn.Module) -> Iterator[None]:
    """Inside, batch norm of these networks normalises by the batch and updates no statistics.

    For a network that a training phase uses and does not train. Gradients flow. In evaluation mode
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
