"""FSDP2 layer by layer: weights, gradients and optimizer state sharded over the processes.

Each large layer is sharded by itself, and is full only during its own forward or backward pass. So
a model may call its layers in any order. Small layers stay on every process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from vaezoo.distributed import all_reduce, full_tensor, is_sharded

MIN_NUMEL = 1 << 15
"""Values of a layer from which it is sharded: gathering less costs more than sharding it saves."""


def apply_fsdp(*modules: nn.Module, min_numel: int = MIN_NUMEL) -> None:
    """Shard the large layers within these modules. All processes must hold the same values.

    Parameters that the modules hold themselves, outside of layers, stay full.
    """
    from torch.distributed.fsdp import fully_shard

    for module in modules:
        for layer in reversed([*module.modules()][1:]):
            own = {p for p in layer.parameters(recurse=False) if p.dim()}  # a scalar has no parts
            if sum(parameter.numel() for parameter in own) >= min_numel:
                for parameter in own:
                    parameter.data = parameter.data.contiguous()  # fully_shard refuses others
                fully_shard(
                    layer,
                    reshard_after_forward=True,
                    ignored_params={p for p in layer.parameters() if p not in own},
                )


def full_state_dict(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The full tensors by name; all processes must call this."""
    # In the same order on every process; the result keeps the order of `tensors`.
    full = {name: full_tensor(tensors[name]) for name in sorted(tensors)}
    return {name: full[name] for name in tensors}


def distribute_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A full tensor, which every process has, sharded as `like` is; unchanged if that is full."""
    if not is_sharded(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = like.device_mesh, like.placements  # type: ignore[attr-defined]
    return distribute_tensor(tensor.to(like.device), mesh, placements, src_data_rank=None)


def all_finite(tensors: Iterable[Tensor]) -> Tensor:
    """Whether every value of these tensors, sharded or full, is finite: 0-dim bool."""
    every = [tensor for tensor in tensors if tensor.numel()]
    extremes = [value.float() for tensor in every for value in local_part(tensor).aminmax()]
    finite = torch.stack(extremes).isfinite().all()
    if any(map(is_sharded, every)):  # another process may have another answer
        finite = all_reduce((~finite).float()) == 0
    return finite


def grad_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The norm of all gradients together, 0-dim.

    It is computed in float64, in which the squares of float32 do not overflow.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    squares = [torch.zeros((), device=gradients[0].device)]
    sharded = squares.copy()
    for gradient in gradients:
        wide = torch.float32 if gradient.device.type == "mps" else torch.float64
        norm = torch.linalg.vector_norm(local_part(gradient), dtype=wide)
        (sharded if is_sharded(gradient) else squares).append(norm.square())
    if len(sharded) > 1:
        squares.append(all_reduce(torch.stack(sharded).sum()))
    return torch.stack(squares).sum().sqrt()


def clip_grad_norm(parameters: Iterable[nn.Parameter], max_norm: float, norm: Tensor) -> None:
    """Scale the gradients, whose norm is `norm`, so that it is at most `max_norm`."""
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for parameter in parameters:
        if parameter.grad is not None:
            local_part(parameter.grad).mul_(scale)


def local_part(tensor: Tensor) -> Tensor:
    """This process's part of a tensor, detached."""
    local: Tensor = tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
    return local.detach()
