"""Gradients averaged over the processes that share a step."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vaezoo.distributed import is_spread, processes, talking


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Give every process the mean of the gradients; one message a type of number.

    A parameter that this process has no gradient for counts as 0, so that processes whose
    examples went different ways still send messages of one size. Of a sharded layer the gradients
    are averaged where they are made.
    """
    if processes() == 1:
        return
    parameters = [parameter for parameter in parameters if not is_spread(parameter)]
    if not parameters:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    for _, alike in groupby(sorted(gradients, key=_type), key=_type):
        _average(list(alike))


@torch.no_grad()
def _average(tensors: Sequence[Tensor]) -> None:
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    with talking():
        dist.all_reduce(flat)
    flat.div_(processes())
    parts = flat.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype)
