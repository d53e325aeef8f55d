"""A step in half precision, through the compiler, and on tensors without values."""

from __future__ import annotations

import torch

from vaezoo.bench.counts import count
from vaezoo.data.batch import Batch
from vaezoo.evaluation.modes import seeded
from vaezoo.testing.check import Broken, check
from vaezoo.testing.pair import CPU, Pair, loss_of
from vaezoo.training.machine import autocast


@check("sum nats in float32: see vaezoo.distributions.full_precision")
def half_precision(pair: Pair) -> None:
    """A step in bfloat16 comes near the one in float32, and its terms are float32"""
    model = pair.build()
    for phase in loss_of(model).phases(model):
        outputs = []
        for precision in ("fp32", "bf16"):
            with seeded(0, CPU), autocast(precision, CPU):
                outputs.append(phase.objective(model, pair.batch(), pair.context()))
        full, half = outputs
        for name, value in {"objective": half.objective, **half.terms}.items():
            if value.dtype != torch.float32:
                raise Broken(f"{name} of phase {phase.name} is {value.dtype}")
        half.objective.backward(inputs=list(phase.parameters))
        a, b = full.objective.item(), half.objective.item()
        if not abs(a - b) <= 0.2 * abs(a) + 1.0:
            raise Broken(f"phase {phase.name}: {b:.4g} in bfloat16, {a:.4g} in float32")


@check("keep Python values that come from tensors out of the step", slow=True)
def compiled(pair: Pair) -> None:
    """A step goes through torch.compile, and comes out the same"""
    model = pair.build()
    torch._dynamo.reset()
    try:
        for phase in loss_of(model).phases(model):
            outputs = []
            # Without code generation, which takes long and draws its own random numbers.
            for objective in (phase.objective, torch.compile(phase.objective, backend="aot_eager")):
                with seeded(0, CPU):
                    outputs.append(objective(model, pair.batch(), pair.context()))
                outputs[-1].objective.backward(inputs=list(phase.parameters))
            eager, compiled = (output.objective.item() for output in outputs)
            if not abs(eager - compiled) <= 1e-3 * (1 + abs(eager)):
                raise Broken(f"phase {phase.name}: {compiled:.6g} compiled, {eager:.6g} not")
    finally:
        torch._dynamo.reset()


@check("read no value back to the host in a step: no .item(), float(tensor), `if tensor`")
def flops(pair: Pair) -> None:
    """The arithmetic of a step is counted on tensors without values"""
    model = pair.build()
    loss = loss_of(model)
    meta = torch.device("meta")
    model.to(meta)
    loss.to(meta)
    x, y = pair.batch()
    batch = Batch(x.to(meta), None if y is None else y.to(meta))
    context = pair.context()._replace(step=torch.zeros((), dtype=torch.int64, device=meta))

    def step() -> None:
        model.on_train_step(context.step)
        for phase in loss.phases(model):
            output = phase.objective(model, batch, context)
            output.objective.backward(inputs=list(phase.parameters))

    if count(step).flops <= 0:
        raise Broken("a step has no matrix product and no convolution that is counted")
