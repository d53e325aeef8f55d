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


def total_norm(tensors: Iterable[Tensor]) -> Tensor:
    """The norm of all tensors together, sharded or full: 0-dim. torch's own takes no mixture."""
    every = [tensor.detach() for tensor in tensors]
    if not any(map(is_sharded, every)):
        return torch.nn.utils.get_total_norm(every)
    sharded = [t.to_local() for t in every if is_sharded(t)]  # type: ignore[attr-defined]
    full = [t for t in every if not is_sharded(t)]
    return (all_reduce(_norm(sharded).square()) + _norm(full).square()).sqrt()


def clip_grad_norm(parameters: Iterable[nn.Parameter], max_norm: float) -> None:
    """Scale the gradients so that their total norm is at most `max_norm`."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    scale = (max_norm / (total_norm(gradients) + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        if is_sharded(gradient):
            gradient = gradient.to_local()  # type: ignore[attr-defined]
        gradient.mul_(scale)


def _norm(tensors: list[Tensor]) -> Tensor:
    filled = [tensor for tensor in tensors if tensor.numel()]
    return torch.nn.utils.get_total_norm(filled) if filled else torch.zeros(())
