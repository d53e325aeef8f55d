"""Activation checkpointing: blocks whose activations are computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def checkpoint_blocks(network: nn.Module, kinds: tuple[type[nn.Module], ...]) -> nn.Module:
    """Let each block of these kinds keep only its input for the backward pass; returns the network.

    In training the block is then computed twice (Chen et al. 2016, arXiv:1604.06174): values and
    gradients stay the same, memory falls from all activations to one tensor a block. The names of
    the weights stay. A block takes one tensor, and draws no random numbers. One with batch norm is
    left as it is: the second time would update its statistics again.
    """
    for block in network.modules():
        if isinstance(block, kinds) and not any(isinstance(m, _BatchNorm) for m in block.modules()):
            # An attribute of the block comes before the method of its class.
            setattr(block, "forward", partial(_forward, block, block.forward))  # noqa: B010
    return network


def _forward(block: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    if not block.training or not torch.is_grad_enabled():
        return forward(x)
    # A CUDA graph cannot record the state of random generators.
    result: Tensor = checkpoint(forward, x, use_reentrant=False, preserve_rng_state=False)
    return result
