"""Training by several processes; here the collectives for losses that need the whole batch.

The trainer averages the gradients over the processes, which is enough for a mean over examples. A
loss that is none (a covariance, an MMD) calls `all_gather`, `local_chunk` and `all_reduce`.

Every process must make the same calls in the same order. The world size is read at each call. With
one process, in evaluation and while a prior is fitted, each function returns its input.

Gradients are those of the mean of the processes' losses, also gradients of gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from vaezoo.errors import ProcessLostError

_local_only = 0


def world_size() -> int:
    """The number of processes that share a training step."""
    if _local_only or not (dist.is_available() and dist.is_initialized()):
        return 1
    return dist.get_world_size()


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


@contextmanager
def local_only() -> Iterator[None]:
    """Make this process work alone in the body: `world_size` is 1, and no collective waits."""
    global _local_only
    _local_only += 1
    try:
        yield
    finally:
        _local_only -= 1


def all_gather(values: Tensor) -> Tensor:
    """The values of the examples of all processes: [local_batch, ...] -> [batch, ...].

    The order is that of the batch in one process. Gradients flow back to each process's own part.
    """
    if values.dim() == 0:
        raise ValueError("all_gather takes one value for each example, not one for the batch")
    if world_size() == 1:
        return values
    from torch.distributed.nn.functional import all_gather as gather

    with raise_peer_errors():
        return torch.cat(gather(values))


def local_chunk(values: Tensor) -> Tensor:
    """This process's part of gathered values: [batch, ...] -> [local_batch, ...]."""
    return values.chunk(world_size())[rank()] if world_size() > 1 else values


def all_reduce(values: Tensor) -> Tensor:
    """The sum over the processes, the same in all of them. Any shape."""
    if world_size() == 1:
        return values
    from torch.distributed.nn.functional import all_reduce as reduce

    with raise_peer_errors():
        return reduce(values)


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds only a part of the tensor (--shard)."""
    return hasattr(tensor, "full_tensor")


def full_tensor(tensor: Tensor) -> Tensor:
    """The full tensor, also where it is sharded; all processes must call this.

    Use it to read a parameter outside the forward pass of its own layer. Gradients flow back.
    """
    if not is_sharded(tensor):
        return tensor
    from torch.distributed.tensor import Partial

    return tensor.full_tensor(grad_placements=[Partial("avg")])  # type: ignore[attr-defined]


@contextmanager
def raise_peer_errors() -> Iterator[None]:
    """Turn torch's errors into ProcessLostError: in a collective, another process is gone."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessLostError(str(error)) from None
