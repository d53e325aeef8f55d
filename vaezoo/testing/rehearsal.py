"""A rehearsal on a GPU that is not there: fake tensors on CUDA, which have shapes and no values."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only

from vaezoo.data.base import Batch
from vaezoo.losses.base import StepContext, loss_of
from vaezoo.models.base import BaseVAE
from vaezoo.plugins.specs import PARTS
from vaezoo.runtime.device import precision_context
from vaezoo.testing.check import CheckFailed, check, fail_if
from vaezoo.testing.subjects import EXAMPLES, ModelWithLoss, named_values, set_training
from vaezoo.training.train_step import to_channels_last

_HOST_READS = {
    "_local_scalar_dense": "item(), float() or a truth value",
    "nonzero": "nonzero() or a mask as an index",
    "masked_select": "masked_select()",
    "equal": "equal()",
    "_unique2": "unique()",
    "unique_dim": "unique()",
}
"""Operations that wait for a value, or for the size of their result, from the device."""

_OTHER_CODE = tuple(
    f"{folder}{os.sep}"  # without the separator, the folders of some plugins begin so too
    for folder in (
        Path(torch.__file__).parent,
        Path(__file__).parents[1],
        Path(mock.__file__).parent,
    )
)
"""Folders whose code is not the plugin's."""

GPU = torch.device("cuda", 0)


@contextmanager
def name_line() -> Iterator[None]:
    """Add the line of the plugin to a CheckFailed that a dispatch mode raised."""
    try:
        yield
    except CheckFailed as error:
        raise CheckFailed(f"{error}{_line(error.__traceback__)}") from error.__cause__
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        name = error.func.overloadpacket.__name__
        what = f"a value is read back by {_HOST_READS.get(name, f'{name}()')}"
        raise CheckFailed(f"{what}{_line(error.__traceback__)}") from None


def _line(found: TracebackType | None) -> str:
    """Of the frames below here, the last one of a plugin; "" if there is none."""
    frames = [f for f in traceback.extract_tb(found) if not f.filename.startswith(_OTHER_CODE)]
    return f": {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""


def _refuse_host_read(operation: str) -> None:
    reads = _HOST_READS.get(operation)
    fail_if(reads is not None, f"a value is read back by {reads}")


class NoHostReads(TorchDispatchMode):
    """Raises CheckFailed at an operation that would wait for the device."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        _refuse_host_read(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


class _PretendGPU(TorchDispatchMode):
    """Raises CheckFailed at an operation that a GPU would refuse or wait for.

    captured: whether copies between CPU and GPU count too, as in a CUDA graph.
    """

    captured = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.prim.device.default:
            return _device(args[0])
        name = func.overloadpacket.__name__
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        if any(_device(t) == GPU for t in tensors):
            _refuse_host_read(name)
            other = [t for t in tensors if t.dim() and _device(t) != GPU and name != "copy_"]
            if other:
                raise CheckFailed(f"{name} meets a tensor {[*other[0].shape]} that is on the CPU")
        try:
            result = func(*args, **(kwargs or {}))
        except UnsupportedOperatorException:
            result = _on_cpu(func, args, kwargs or {})
        if self.captured and name in ("_to_copy", "copy_"):
            wrong = len({_device(t) for t in (*tensors, result)}) > 1
            fail_if(wrong, "a copy between CPU and GPU, which waits, and no CUDA graph can hold it")
        return result


def _device(tensor: Tensor) -> torch.device:
    """Without a dispatch of its own, which takes as long as an operation."""
    return tensor.fake_device if isinstance(tensor, FakeTensor) else tensor.device


def _on_cpu(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The result of an operation that has no fake one: shapes from real tensors on the CPU."""
    with _disable_current_modes():
        given = tree_map_only(
            Tensor, lambda t: torch.ones(tuple(t.shape), dtype=t.dtype), (args, kwargs)
        )
        found = func(*given[0], **given[1])
    return tree_map_only(
        Tensor, lambda t: torch.empty(tuple(t.shape), dtype=t.dtype, device=GPU), found
    )


def move(modules: Iterable[nn.Module]) -> None:
    """Put fake tensors on the GPU in the place of all parameters and buffers; within the mode."""
    moved: dict[int, tuple[Tensor, Tensor]] = {}  # with the old one, so that no id comes twice
    for module in (part for root in modules for part in root.modules()):
        own: Any
        for own in (module._parameters, module._buffers):
            for name, tensor in own.items():
                if tensor is not None:
                    new = moved.setdefault(id(tensor), (tensor, _like(tensor)))[1]
                    own[name] = new


def _like(tensor: Tensor) -> Tensor:
    """A fake tensor on the GPU; 4-dimensional ones are channels-last, as in training."""
    fake = torch.empty(tuple(tensor.shape), dtype=tensor.dtype, device=GPU)
    if tensor.dim() == 4:
        fake = fake.contiguous(memory_format=torch.channels_last)
    is_parameter = isinstance(tensor, nn.Parameter)
    return nn.Parameter(fake, tensor.requires_grad) if is_parameter else fake


@check("make constants buffers, create tensors on the device of an input, read no value back")
def rehearsal(pair: ModelWithLoss) -> None:
    """On a GPU, training and evaluation keep to its tensors and read no value back"""
    model, real = pair.build(), pair.batch()
    with (
        precision_context("fp32", deterministic=True),
        FakeTensorMode(allow_non_fake_inputs=True, allow_fallback_kernels=False),
        _PretendGPU() as gpu,
        name_line(),
    ):
        move((model, loss_of(model)))
        batch = to_channels_last(Batch(_like(real.x), None if real.y is None else _like(real.y)))
        context = StepContext(torch.zeros((), dtype=torch.int64, device=GPU), 100, EXAMPLES)
        for precision in (torch.float32, torch.bfloat16):
            with _autocast(precision):
                gpu.captured = True
                _train(set_training(model, True), batch, context, precision)
                gpu.captured = False
                if precision == torch.float32 or pair.spec.kind not in PARTS:
                    _evaluate(pair, set_training(model, False), batch, context)


@contextmanager
def _autocast(precision: torch.dtype) -> Iterator[None]:
    """Autocast of a GPU; torch.autocast turns itself off where there is none."""
    torch.set_autocast_enabled("cuda", precision == torch.bfloat16)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.clear_autocast_cache()


def _fitted(model: BaseVAE, value: bool) -> AbstractContextManager[object]:
    """Its sampler is fitted, or is not: the host may ask that, once a batch, in evaluation."""
    if model.sampler is None:
        return nullcontext()
    return mock.patch.object(type(model.sampler), "is_fitted", value)


def _gradients(outputs: object, inputs: Tensor | Sequence[Tensor], **_: object) -> list[Tensor]:
    """In place of torch.autograd.grad, which asks the driver for a stream: only their shapes."""
    given = [inputs] if isinstance(inputs, Tensor) else inputs
    return [torch.zeros_like(tensor) for tensor in given]


@mock.patch.object(torch.autograd, "grad", _gradients)
def _train(model: BaseVAE, batch: Batch, context: StepContext, precision: torch.dtype) -> None:
    model.on_train_step(context.global_step)
    for phase in loss_of(model).phases(model):
        for name, value in named_values(phase.loss_fn(model, batch, context)).items():
            where = f"in {precision} {name} of phase {phase.name}"
            fail_if(value.device != GPU, f"{where} is on the CPU")
            fail_if(value.dtype != torch.float32, f"{where} is {value.dtype}")


@torch.no_grad()
def _evaluate(pair: ModelWithLoss, model: BaseVAE, batch: Batch, context: StepContext) -> None:
    y = model.labels(batch.y)
    with _fitted(model, pair.spec.kind == "sampler"):
        loss_of(model)(model, batch, context)
        if not torch.is_autocast_enabled("cuda"):
            model.sample(len(batch.x), y, mean=False)
            model.reconstruct(batch.x, y)
            if "importance" in pair.tags:
                model.log_likelihood(batch.x, y, samples=1)
