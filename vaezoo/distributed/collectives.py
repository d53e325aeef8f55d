"""A step that several processes share, each with as many of its examples: what needs all of them.

Most losses are means over examples, and need nothing of this: the trainer averages gradients over
the processes. What looks at the batch as a whole (a covariance, a discrepancy, a permutation, the
statistics of a codebook) says so with `gather`, `share` and `total`.

Everything asks for the processes when it is called, never when something is built, and every
process must call the same of these in the same order. With one process, in evaluation and while a
prior is fitted they give back what they are given.

Gradients: what is minimised is the mean over the processes of their objectives, and the gradients
here are that one's, whatever the objectives have in common. They can be taken twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from vaezoo.errors import ProcessLostError

_alone = 0


def world_size() -> int:
    """How many processes share a step."""
    if _alone or not (dist.is_available() and dist.is_initialized()):
        return 1
    return dist.get_world_size()


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


@contextmanager
def local_only() -> Iterator[None]:
    """Inside, this process works by itself: nothing is shared, and nobody is waited for."""
    global _alone
    _alone += 1
    try:
        yield
    finally:
        _alone -= 1


def all_gather(values: Tensor) -> Tensor:
    """The values of the examples of all processes: [share, ...] -> [batch, ...].

    In the order of the batch that one process would have. Gradients come back to where they belong.
    """
    if values.dim() == 0:
        raise ValueError("gather takes a value for each example, not one for the batch")
    return _Gather.apply(values) if world_size() > 1 else values


def local_chunk(values: Tensor) -> Tensor:
    """This process's part of what was gathered: [batch, ...] -> [share, ...]."""
    return values.chunk(world_size())[rank()] if world_size() > 1 else values


def all_reduce(values: Tensor) -> Tensor:
    """The sum over the processes, the same for all of them. Any shape."""
    return _Total.apply(values) if world_size() > 1 else values


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process has only a part of it (--shard)."""
    return hasattr(tensor, "full_tensor")


def full_tensor(tensor: Tensor) -> Tensor:
    """All of a tensor, of which each process may hold a part; all processes must ask.

    For whoever reads a parameter outside the forward of the layer that has it. Gradients find back.
    """
    if not is_sharded(tensor):
        return tensor
    from torch.distributed.tensor import Partial

    found: Tensor = tensor.full_tensor(grad_placements=[Partial("avg")])  # type: ignore[attr-defined]
    return found


@contextmanager
def raise_peer_errors() -> Iterator[None]:
    """ProcessLostError where the others cannot be reached any more."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessLostError(str(error)) from None


def _sum(values: Tensor) -> Tensor:
    summed = values.detach().clone(memory_format=torch.contiguous_format)
    with raise_peer_errors():
        dist.all_reduce(summed)
    return summed


# Linear maps, each with its transpose for a gradient: as often as it is taken.


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return _sum(values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return _Total.apply(grads[0])


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        values = values.detach().contiguous()
        gathered = values.new_empty(dist.get_world_size() * values.shape[0], *values.shape[1:])
        with raise_peer_errors():
            dist.all_gather_into_tensor(gathered, values)
        return gathered

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return _SumAndShare.apply(grads[0])


class _SumAndShare(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return _sum(values).chunk(dist.get_world_size())[dist.get_rank()].clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return _Gather.apply(grads[0])
