"""A device that is not the CPU and computes on it: `pretend`, for one process.

Its tensors have values. Like on a GPU, an operation on tensors of two devices is an error, and
`copies` counts what goes from one to the other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)


class _Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


_setup_privateuseone_for_python_backend("pretend", backend_module=_Backend())
DEVICE = torch.device("pretend", 0)
_TWO_DEVICES = {"copy_", "_to_copy", "index", "index_put", "index_put_"}
"""Operations that take tensors of two devices: copies, and indices, which are sent."""


class _OnDevice(Tensor):
    """A tensor on the device. held: its values, on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> _OnDevice:
        self: _OnDevice = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        self.held = held
        return self

    @property
    def data(self) -> Tensor:
        return Tensor.data.__get__(self)  # type: ignore[attr-defined]

    @data.setter
    def data(self, new: _OnDevice) -> None:
        Tensor.data.__set__(self, new)  # type: ignore[attr-defined]
        self.held = new.held

    def tolist(self) -> Any:
        return self.held.tolist()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"pretend:{self.held!r}"

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})


class PretendDevice(TorchDispatchMode):
    """While it is entered, tensors can be created on the device."""

    copies = 0
    """The number of copies to the device or from it since the process began."""

    def __enter__(self) -> PretendDevice:
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=) copies from the CPU
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch._C._set_only_lift_cpu_tensors(False)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, _OnDevice)]
        if tensors or _is_ours(kwargs.get("device")):
            return _run(func, args, kwargs)
        return func(*args, **kwargs)


def _is_ours(device: object) -> bool:
    return device is not None and torch.device(device).type == DEVICE.type  # type: ignore[arg-type]


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = func.overloadpacket.__name__
    if func is torch.ops.prim.device.default:
        return DEVICE
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    ours = [t for t in tensors if isinstance(t, _OnDevice)]
    foreign = [t for t in tensors if t.dim() and not isinstance(t, _OnDevice)]
    if ours and foreign and name not in _TWO_DEVICES:
        raise RuntimeError(f"{name}: a tensor {[*foreign[0].shape]} is on the CPU")
    target = kwargs.get("device")
    given = {**kwargs, **({} if target is None else {"device": torch.device("cpu")})}
    real_args, real_kwargs = tree_map_only(_OnDevice, lambda t: t.held, (args, given))
    result = func(*real_args, **real_kwargs)
    if name == "_to_copy" and target is not None:
        PretendDevice.copies += _is_ours(target) != bool(ours)
    if name == "copy_":
        PretendDevice.copies += isinstance(args[0], _OnDevice) != isinstance(args[1], _OnDevice)
    if target is not None and not _is_ours(target):
        return result
    if name == "copy_" and not isinstance(args[0], _OnDevice):
        return args[0]
    wrapped = tree_map_only(Tensor, _OnDevice, result)
    return return_and_correct_aliasing(func, args, kwargs, wrapped)
