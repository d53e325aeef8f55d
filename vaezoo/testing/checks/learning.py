"""Checks of training: gradients, phases, and overfitting one batch."""

from __future__ import annotations

import torch
from torch import nn

from vaezoo.losses.base import Phase, loss_of
from vaezoo.models.base import BaseVAE
from vaezoo.testing.check import CheckFailed, check, fail_if
from vaezoo.testing.subjects import LEARNING_STEPS, ModelWithLoss

_STEPS = 3
_EXPLAINED = 0.3
"""The fraction of the variance of eight examples that a model must explain after training."""


@check("use the parameter in the loss of its phase, or make it a buffer, or freeze it")
def gradients(pair: ModelWithLoss) -> None:
    """Every parameter gets a gradient"""
    model = pair.build()
    batch, loss = pair.batch(), loss_of(model)
    phases = loss.phases(model)
    names = _names(model)
    in_phases = {id(p) for phase in phases for p in phase.parameters}
    for parameter, name in names.items():
        if parameter.requires_grad and id(parameter) not in in_phases:
            raise CheckFailed(f"{name} is in no phase")
    # A layer that starts at zero hides those behind it in the first step.
    moved: set[int] = set()
    for step in range(_STEPS):
        model.on_train_step(torch.tensor(step))
        for phase in phases:
            phase.loss_fn(model, batch, pair.context(step, _STEPS)).loss.backward(
                inputs=list(phase.parameters)
            )
            moved |= {id(p) for p in phase.parameters if p.grad is not None and p.grad.any()}
            _descend(phase)
    before = {id(p): p.detach().clone() for p in names}
    model.fit_prior(lambda: [batch])
    moved |= {id(p) for p in names if not p.detach().equal(before[id(p)])}
    still = [name for p, name in names.items() if p.requires_grad and id(p) not in moved]
    fail_if(still, f"{', '.join(still[:3])}{' …' if len(still) > 3 else ''}: no gradient, or 0")


@check("check the signs and weights of the loss, and what stops gradients")
def overfit(pair: ModelWithLoss) -> None:
    """A model can overfit one batch"""
    _, before, after = pair.learned
    if not after >= _EXPLAINED:
        raise CheckFailed(
            f"after {LEARNING_STEPS} steps on a few examples, reconstructions explain "
            f"{after:.2f} of their variance (before: {before:.2f}), not {_EXPLAINED} or more"
        )


@check("change nothing in the loss function of a phase: the trainer does the updates")
def phases(pair: ModelWithLoss) -> None:
    """A phase changes its own parameters and no others"""
    model = pair.build()
    phases = loss_of(model).phases(model)
    names = _names(model)
    known = {id(parameter) for parameter in names}
    titles = [phase.name for phase in phases]
    fail_if(
        len({*titles}) < len(titles), f"two of the phases {', '.join(titles)} have the same name"
    )
    for phase in phases:
        own = [id(p) for p in phase.parameters]
        fail_if(len({*own}) < len(own), f"phase {phase.name} has a parameter twice")
        if not {*own} <= known:
            raise CheckFailed(f"phase {phase.name} has a parameter of neither model nor loss")
        before = {p: p.detach().clone() for p in names}
        output = phase.loss_fn(model, pair.batch(), pair.context())
        output.loss.backward(inputs=list(phase.parameters))
        for parameter, name in names.items():
            if id(parameter) not in own and parameter.grad is not None:
                raise CheckFailed(f"phase {phase.name} gives a gradient to {name}, not its own")
        _descend(phase)
        changed = {id(p) for p in names if not p.detach().equal(before[p])}
        for parameter, name in names.items():
            # One that no gradient moves may be set: to its best value in closed form, for one.
            if parameter.requires_grad and id(parameter) in changed and id(parameter) not in own:
                raise CheckFailed(f"phase {phase.name} changes {name}, not its own")
        fail_if(not changed, f"phase {phase.name} changes nothing")


def _names(model: BaseVAE) -> dict[nn.Parameter, str]:
    """Each parameter of model and loss with its name."""
    loss = loss_of(model)
    names = {p: f"the loss's {name}" for name, p in loss.named_parameters()}
    return {**names, **{p: name for name, p in model.named_parameters()}}


def _descend(phase: Phase) -> None:
    with torch.no_grad():
        for parameter in phase.parameters:
            if parameter.grad is not None:
                parameter.sub_(1e-3 * parameter.grad.sign())
                parameter.grad = None
