"""Checks of a training step: bfloat16, torch.compile, and no synchronisation with the host."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vaezoo.bench.counts import count
from vaezoo.losses.base import loss_of
from vaezoo.runtime.device import autocast, precision_context
from vaezoo.runtime.seed import seeded
from vaezoo.testing.check import CheckFailed, check, fail_if
from vaezoo.testing.subjects import CPU, ModelWithLoss

_READS_BACK = {
    "_local_scalar_dense": "item(), float() or a truth value",
    "nonzero": "nonzero() or a mask as an index",
    "masked_select": "masked_select()",
    "equal": "equal()",
    "_unique2": "unique()",
    "unique_dim": "unique()",
}
"""Operations that wait for a value, or for the size of their result, from the device."""

_OTHER_CODE = (str(Path(torch.__file__).parent), str(Path(__file__).parents[2]))
"""Folders whose code is not the plugin's."""


@check("sum nats in float32: see vaezoo.models.distributions.to_float32")
def half_precision(pair: ModelWithLoss) -> None:
    """A step in bfloat16 is close to one in float32, and its terms are float32"""
    model = pair.build()
    for phase in loss_of(model).phases(model):
        outputs = []
        for precision in ("fp32", "bf16"):
            with seeded(0, CPU), autocast(precision, CPU):
                outputs.append(phase.loss_fn(model, pair.batch(), pair.context()))
        full, half = outputs
        for name, value in {"loss": half.loss, **half.terms}.items():
            fail_if(value.dtype != torch.float32, f"{name} of phase {phase.name} is {value.dtype}")
        half.loss.backward(inputs=list(phase.parameters))
        if "discrete" in pair.tags:
            continue  # a code that is nearly another one becomes it
        a, b = full.loss.item(), half.loss.item()
        if not abs(a - b) <= 0.2 * abs(a) + 1.0:
            raise CheckFailed(f"phase {phase.name}: {b:.4g} in bfloat16, {a:.4g} in float32")


@check("do not turn tensors into Python values in a step", slow=True)
def compiled(pair: ModelWithLoss) -> None:
    """A step gives the same result with torch.compile"""
    model = pair.build()
    torch._dynamo.reset()
    try:
        for phase in loss_of(model).phases(model):
            outputs = []
            # Without code generation, which takes long and draws its own random numbers.
            for objective in (phase.loss_fn, torch.compile(phase.loss_fn, backend="aot_eager")):
                with seeded(0, CPU):
                    outputs.append(objective(model, pair.batch(), pair.context()))
                outputs[-1].loss.backward(inputs=list(phase.parameters))
            eager, compiled = (output.loss.item() for output in outputs)
            if not abs(eager - compiled) <= 1e-3 * (1 + abs(eager)):
                raise CheckFailed(f"phase {phase.name}: {compiled:.6g} compiled, {eager:.6g} not")
    finally:
        torch._dynamo.reset()


@check("read no value back to the host in a step: no .item(), float(tensor), `if tensor`")
def flops(pair: ModelWithLoss) -> None:
    """The FLOPs of a step can be counted, and it waits for no value from the device"""
    model = pair.build()
    loss, batch, context = loss_of(model), pair.batch(), pair.context()

    def step() -> None:
        model.on_train_step(context.global_step)
        for phase in loss.phases(model):
            output = phase.loss_fn(model, batch, context)
            output.loss.backward(inputs=list(phase.parameters))

    with precision_context("fp32", deterministic=True), _NoReadingBack():
        counted = count(step)
    fail_if(
        counted.flops <= 0, "the FLOP counter finds no matrix product and no convolution in a step"
    )


class _NoReadingBack(TorchDispatchMode):
    """Raises CheckFailed at an operation that would wait for the device."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name in _READS_BACK:
            raise CheckFailed(f"a value is read back by {_READS_BACK[name]}{_where()}")
        return func(*args, **(kwargs or {}))


def _where() -> str:
    """The line of the plugin that is running, if there is one."""
    for frame in reversed(traceback.extract_stack()):
        if not frame.filename.startswith(_OTHER_CODE):
            return f": {Path(frame.filename).name}, line {frame.lineno}"
    return ""
