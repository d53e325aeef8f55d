"""Weights, gradients and optimizer state spread over the processes: FSDP2, layer by layer.

Every large layer is sharded by itself, and whole only while its own forward or backward pass runs.
So a model may call its parts in any order and by any name; what is small stays on every process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from vaezoo.distributed import all_reduce, full_tensor, is_sharded

LARGE = 1 << 15
"""Numbers in a layer from which it is sharded: for less, asking for it costs more than it saves."""


def apply_fsdp(*modules: nn.Module, large: int = LARGE) -> None:
    """Shard the large layers within these modules. All processes must hold the same numbers.

    What the modules hold themselves, outside of layers, stays whole: it is read by any method.
    """
    from torch.distributed.fsdp import fully_shard

    for module in modules:
        for layer in reversed([*module.modules()][1:]):
            own = {p for p in layer.parameters(recurse=False) if p.dim()}  # a scalar has no parts
            if sum(parameter.numel() for parameter in own) >= large:
                for parameter in own:
                    parameter.data = parameter.data.contiguous()  # or it is not taken
                fully_shard(
                    layer,
                    reshard_after_forward=True,
                    ignored_params={p for p in layer.parameters() if p not in own},
                )


def full_state_dict(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as one process would have them; all processes must ask."""
    found = dict(tensors)
    for name in sorted(found):  # in one order, whatever order they came to each process in
        found[name] = full_tensor(found[name])
    return found


def distribute_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, which every process has, as `like` is: this process's part if that is one."""
    if not is_sharded(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = like.device_mesh, like.placements  # type: ignore[attr-defined]
    return distribute_tensor(tensor.to(like.device), mesh, placements, src_data_rank=None)


def total_norm(tensors: Iterable[Tensor]) -> Tensor:
    """The norm of all of them together, of parts and of wholes: 0-dim."""
    every = [tensor.detach() for tensor in tensors]
    if not any(map(is_sharded, every)):
        return torch.nn.utils.get_total_norm(every)
    parts = [t.to_local() for t in every if is_sharded(t)]  # type: ignore[attr-defined]
    wholes = [t for t in every if not is_sharded(t)]
    squares = all_reduce(_norm(parts).square()) + _norm(wholes).square()
    return squares.sqrt()


def clip_grad_norm(parameters: Iterable[nn.Parameter], longest: float) -> None:
    """Shorten the gradient to this norm if it is longer."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    shorter = (longest / (total_norm(gradients) + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        if is_sharded(gradient):
            gradient = gradient.to_local()  # type: ignore[attr-defined]
        gradient.mul_(shorter)


def _norm(tensors: list[Tensor]) -> Tensor:
    filled = [tensor for tensor in tensors if tensor.numel()]
    return torch.nn.utils.get_total_norm(filled) if filled else torch.zeros(())
