"""Checks of training: gradients, phases, overfitting, bfloat16, torch.compile, repeatability."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from vaezoo.bench.counts import count
from vaezoo.checkpoint.format import load_into, load_weights, save_weights
from vaezoo.losses.base import Phase, loss_of
from vaezoo.models.base import BaseVAE
from vaezoo.runtime.device import autocast, precision_context, seeded
from vaezoo.testing.check import check, fail_if
from vaezoo.testing.rehearsal import NoHostReads, name_line
from vaezoo.testing.subjects import CPU, LEARNING_STEPS, ModelWithLoss, named_values, set_training

_EXPLAINED = 0.3
"""The fraction of the variance of eight examples that a model must explain after training."""


@check("use the parameter in the loss of its phase, or make it a buffer, or freeze it")
def gradients(pair: ModelWithLoss) -> None:
    """Every parameter gets a gradient"""
    model, batch = pair.build(), pair.batch()
    phases = loss_of(model).phases(model)
    names = _names(model)
    trained = {p for phase in phases for p in phase.parameters}
    for parameter, name in names.items():
        fail_if(parameter.requires_grad and parameter not in trained, f"{name} is in no phase")
    # A layer that starts at zero hides those behind it in the first step.
    moved: set[nn.Parameter] = set()
    for step in range(3):
        model.on_train_step(torch.tensor(step))
        for phase in phases:
            output = phase.loss_fn(model, batch, pair.context(step, 3))
            output.loss.backward(inputs=list(phase.parameters))
            moved |= {p for p in phase.parameters if p.grad is not None and p.grad.any()}
            _descend(phase)
    before = {p: p.detach().clone() for p in names}
    model.fit_sampler([batch])
    moved |= {p for p in names if not p.detach().equal(before[p])}
    still = [name for p, name in names.items() if p.requires_grad and p not in moved]
    fail_if(still, f"{', '.join(still[:3])}{' …' if len(still) > 3 else ''}: no gradient, or 0")


@check("check the signs and weights of the loss, and what stops gradients")
def overfit(pair: ModelWithLoss) -> None:
    """A model can overfit one batch"""
    _, before, after = pair.learned
    fail_if(
        not after >= _EXPLAINED,
        f"after {LEARNING_STEPS} steps on a few examples, reconstructions explain "
        f"{after:.2f} of their variance (before: {before:.2f}), not {_EXPLAINED} or more",
    )


@check("change nothing in the loss function of a phase: the trainer does the updates")
def phases(pair: ModelWithLoss) -> None:
    """A phase changes its own parameters and no others"""
    model = pair.build()
    phases = loss_of(model).phases(model)
    names = _names(model)
    titles = [phase.name for phase in phases]
    twice = len({*titles}) < len(titles)
    fail_if(twice, f"two of the phases {', '.join(titles)} have the same name")
    for phase in phases:
        own = {*phase.parameters}
        fail_if(len(own) < len(phase.parameters), f"phase {phase.name} has a parameter twice")
        known = own <= {*names}
        fail_if(not known, f"phase {phase.name} has a parameter of neither model nor loss")
        before = {p: p.detach().clone() for p in names}
        output = phase.loss_fn(model, pair.batch(), pair.context())
        output.loss.backward(inputs=list(phase.parameters))
        others = {p: f"{name}, not its own" for p, name in names.items() if p not in own}
        for parameter, name in others.items():
            wrong = parameter.grad is not None
            fail_if(wrong, f"phase {phase.name} gives a gradient to {name}")
        _descend(phase)
        changed = {p for p in names if not p.detach().equal(before[p])}
        for parameter, name in others.items():
            # One that no gradient moves may be set: to its best value in closed form, for one.
            wrong = parameter.requires_grad and parameter in changed
            fail_if(wrong, f"phase {phase.name} changes {name}")
        fail_if(not changed, f"phase {phase.name} changes nothing")


@check("sum nats in float32: see vaezoo.models.distributions.to_float32")
def half_precision(pair: ModelWithLoss) -> None:
    """A step in bfloat16 is close to one in float32, and its terms are float32"""
    model = pair.build()
    for phase in loss_of(model).phases(model):
        with seeded(0, CPU):
            full = phase.loss_fn(model, pair.batch(), pair.context())
        with seeded(0, CPU), autocast("bf16", CPU):
            half = phase.loss_fn(model, pair.batch(), pair.context())
        for name, value in named_values(half).items():
            fail_if(value.dtype != torch.float32, f"{name} of phase {phase.name} is {value.dtype}")
        half.loss.backward(inputs=list(phase.parameters))
        if "discrete" in pair.tags:
            continue  # a code that is nearly another one becomes it
        a, b = full.loss.item(), half.loss.item()
        close = abs(a - b) <= 0.2 * abs(a) + 1.0
        fail_if(not close, f"phase {phase.name}: {b:.4g} in bfloat16, {a:.4g} in float32")


@check("do not turn tensors into Python values in a step", slow=True)
def compiled(pair: ModelWithLoss) -> None:
    """A step gives the same result with torch.compile"""
    model = pair.build()
    torch._dynamo.reset()
    try:
        for phase in loss_of(model).phases(model):
            values = []
            # Without code generation, which takes long and draws its own random numbers.
            for loss_fn in (phase.loss_fn, torch.compile(phase.loss_fn, backend="aot_eager")):
                with seeded(0, CPU):
                    loss = loss_fn(model, pair.batch(), pair.context()).loss
                loss.backward(inputs=list(phase.parameters))
                values.append(loss.item())
            a, b = values
            close = abs(a - b) <= 1e-3 * (1 + abs(a))
            fail_if(not close, f"phase {phase.name}: {b:.6g} compiled, {a:.6g} not")
    finally:
        torch._dynamo.reset()


@check("read no value back to the host in a step: no .item(), float(tensor), `if tensor`")
def flops(pair: ModelWithLoss) -> None:
    """The FLOPs of a step can be counted, and it waits for no value from the device"""
    model, batch, context = pair.build(), pair.batch(), pair.context()

    def step() -> None:
        model.on_train_step(context.global_step)
        for phase, output in pair.outputs(model, batch):
            output.loss.backward(inputs=list(phase.parameters))

    with precision_context("fp32", deterministic=True), name_line(), NoHostReads():
        counted = count(step)
    fail_if(counted.flops <= 0, "the FLOP counter finds no matrix product and no convolution")


def _names(model: BaseVAE) -> dict[nn.Parameter, str]:
    """Each parameter of model and loss with its name."""
    names = {p: f"the loss's {name}" for name, p in loss_of(model).named_parameters()}
    return {**names, **{p: name for name, p in model.named_parameters()}}


def _descend(phase: Phase) -> None:
    with torch.no_grad():
        for parameter in phase.parameters:
            if parameter.grad is not None:
                parameter.sub_(1e-3 * parameter.grad.sign())
                parameter.grad = None


@check("draw all random numbers from torch's generator")
def seeds(pair: ModelWithLoss) -> None:
    """The same seed gives the same weights, steps and samples; another seed gives others"""
    first, second = pair.build(seed=0), pair.build(seed=0)
    for name, tensor in first.state_dict().items():
        same = tensor.equal(second.state_dict()[name])
        fail_if(not same, f"{name} has other initial values with the same seed")
    batch = pair.batch()
    steps = [torch.stack([*pair.train(model, batch, 2)]) for model in (first, second)]
    fail_if(not steps[0].equal(steps[1]), "training steps differ with the same seed")
    y = None if batch.y is None else batch.y[:3]
    samples = []
    for model, seed in ((first, 0), (second, 0), (second, 1)):
        with seeded(seed, CPU):
            samples.append(model.eval().sample(3, y))
    fail_if(not samples[0].equal(samples[1]), "samples differ with the same seed")
    fail_if(samples[1].equal(samples[2]), "samples do not depend on the seed")


@check("use statistics of the batch in training mode only")
def independence(pair: ModelWithLoss) -> None:
    """In evaluation, results of an example do not depend on the rest of the batch"""
    with pair.in_evaluation(5) as (model, (x, _), y):
        one_x, one_y = x[1:2], None if y is None else y[1:2]
        posterior, alone = model.encode(x, y), model.encode(one_x, one_y)
        z = posterior.rsample()
        one_z = z[1:2]
        pairs: dict[str, tuple[Tensor, Tensor]] = {}
        try:
            pairs["the posterior's mean"] = posterior.mean, alone.mean
        except NotImplementedError:
            pairs["log q(z|x)"] = posterior.log_prob(z), alone.log_prob(one_z)
        likelihood, of_one = model.decode(z, y), model.decode(one_z, one_y)
        pairs["the likelihood's mean"] = likelihood.mean, of_one.mean
        pairs["log p(x|z)"] = likelihood.log_prob(x), of_one.log_prob(one_x)
        for what, (together, by_itself) in pairs.items():
            apart = (together[1:2] - by_itself).abs().max()
            same = torch.allclose(together[1:2], by_itself, rtol=1e-3, atol=1e-4)
            fail_if(not same, f"{what} of an example moves by {apart:.3g} with its batch")


@check("change buffers in training mode only, schedules in on_train_step only")
def evaluation(pair: ModelWithLoss) -> None:
    """Evaluation without gradients works, and changes no state"""
    with pair.in_evaluation(3) as (model, batch, y):
        before = {name: tensor.clone() for name, tensor in _state(model).items()}
        first = pair.loss(model, batch)
        model.sample(2, None if y is None else y[:2])
        model.reconstruct(batch.x, y)
        if "importance" in pair.tags:
            model.log_likelihood(batch.x, y, samples=2)
        second = pair.loss(model, batch)
        after = _state(model)
        for name, tensor in before.items():
            fail_if(not after[name].equal(tensor), f"{name} changes in evaluation")
        fail_if(not first.equal(second), "the same batch gives another loss the second time")


@check("keep everything that a model learns in parameters and persistent buffers")
def weights(pair: ModelWithLoss) -> None:
    """Weights saved as safetensors and loaded again give the same outputs"""
    with pair.in_evaluation(3) as (model, batch, y):
        model.fit_sampler([batch])
        loaded = set_training(pair.build(seed=1), False)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "weights.safetensors"
            for module, copy in ((model, loaded), (loss_of(model), loss_of(loaded))):
                save_weights(path, module.state_dict())
                load_into(copy, load_weights(path), path)
        found = []
        for one in (model, loaded):
            values = {"loss": pair.loss(one, batch)}
            with seeded(3, CPU):
                values["sample"] = one.sample(3, y)
            with seeded(3, CPU):
                values["reconstruct"] = one.reconstruct(batch.x, y)
            found.append(values)
        for what, value in found[0].items():
            fail_if(not value.equal(found[1][what]), f"{what} is different after loading")


def _state(model: BaseVAE) -> dict[str, Tensor]:
    """The state of model and loss."""
    loss = {f"the loss's {name}": v for name, v in loss_of(model).state_dict().items()}
    return {**model.state_dict(), **loss}
