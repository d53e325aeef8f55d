"""The optimizers of a run: torch's, their weight decay, and the learning rate at each step."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import nn

from vaezoo.losses.base import Phase
from vaezoo.training.options import TrainOptions


def _without_dynamo(base: type[torch.optim.Optimizer], *state: str) -> type[torch.optim.Optimizer]:
    """An optimizer of torch, equal to the bit, that does not import `torch._dynamo`.

    torch wraps the methods of optimizers for torch.compile. The first call of a wrapped method
    imports `torch._dynamo`, which takes two of the six seconds before the first training step. Here
    the methods are unwrapped: only losses are compiled, never optimizers.

    state: the names of the tensors that it keeps for each parameter.
    """
    names = ("zero_grad", "add_param_group", "state_dict", "load_state_dict")
    own = {name: inspect.unwrap(getattr(base, name)) for name in names}
    step = torch.no_grad()(inspect.unwrap(base.step))
    own |= {"step": step, "state_names": frozenset(state), "__module__": __name__}
    return type(base.__name__, (base,), own)


OPTIMIZERS = {
    "adam": _without_dynamo(torch.optim.Adam, "step", "exp_avg", "exp_avg_sq"),
    "adamw": _without_dynamo(torch.optim.AdamW, "step", "exp_avg", "exp_avg_sq"),
    "adamax": _without_dynamo(torch.optim.Adamax, "step", "exp_avg", "exp_inf"),
    "radam": _without_dynamo(torch.optim.RAdam, "step", "exp_avg", "exp_avg_sq"),
    "sgd": _without_dynamo(torch.optim.SGD, "momentum_buffer"),
}


def make_optimizer(
    phase: Phase, options: TrainOptions, device: torch.device, decayed: set[nn.Parameter]
) -> torch.optim.Optimizer:
    """The optimizer of a phase. decayed: the parameters that weight decay applies to.

    The phase's betas go before those of the options; SGD takes the first as its momentum.
    """
    cls, on_gpu = OPTIMIZERS[options.optimizer], device.type == "cuda"
    betas = phase.betas or (options.momentum, options.adam_beta2)
    settings: dict[str, Any] = {
        # A CUDA graph reads it, so on a GPU it is a tensor.
        "lr": torch.tensor(options.lr, device=device) if on_gpu else options.lr,
        "betas": betas,
        "momentum": betas[0],
        # Fused and foreach kernels cannot mix sharded and full tensors.
        "fused": device.type != "mps" and not options.shard,
        "foreach": False if options.shard else None,
        "capturable": on_gpu,
        "weight_decay": 0.0,
    }
    accepted = inspect.signature(cls.__init__).parameters
    groups: list[dict[str, object]] = [{"params": list(phase.parameters)}]
    if decay := options.decay:
        both = [[p for p in phase.parameters if (p in decayed) == has] for has in (True, False)]
        rates = zip(both, (decay, 0.0), strict=True)
        groups = [{"params": own, "weight_decay": rate} for own, rate in rates if own]
    optimizer = cls(groups, **{name: settings[name] for name in settings.keys() & accepted.keys()})
    if optimizer.defaults.get("momentum"):
        # Instead of None until the first step: a skipped first step must leave no trace.
        for parameter in phase.parameters:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def decayed_parameters(*modules: nn.Module) -> set[nn.Parameter]:
    """The weights of linear layers, convolutions, attention and embeddings, for weight decay.

    They have two or more dimensions, and `weight` in their name. Biases, norms, scales, codebooks,
    pseudo-inputs and other parameters of a prior are none.
    """
    return {
        parameter
        for module in modules
        for path, layer in module.named_modules()
        if "norm" not in type(layer).__name__.lower()
        for name, parameter in layer.named_parameters(recurse=False)
        if parameter.dim() > 1 and ("weight" in name or path.endswith("parametrizations.weight"))
    }


def lr_scale(options: TrainOptions, step: int, total_steps: int) -> float:
    """The factor of the learning rate at a step (from 0), between 0 and 1.

    It rises to 1 in the warm-up; the linear and the cosine schedule begin after it. one_cycle is
    torch's OneCycleLR (Smith & Topin 2017) without its change of momentum.
    """
    warmup = _steps(options.lr_warmup, total_steps)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / (total_steps - warmup)
    if options.schedule == "linear":
        return 1.0 - done
    if options.schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done))
    if options.schedule == "step":
        passed = sum(step >= _steps(place, total_steps) for place in options.lr_milestones)
        return 0.1**passed
    if options.schedule == "one_cycle":
        top, start, end = 0.3 * total_steps - 1, 1 / 25, 1 / 25e4
        if step <= top:
            return start + (1 - start) * 0.5 * (1 - math.cos(math.pi * step / top))
        fallen = (step - top) / (total_steps - 1 - top)
        return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * fallen))
    return 1.0


def _steps(amount: float, total_steps: int) -> int:
    """A number of steps, given as such or, below 1, as a fraction of all."""
    return round(amount * total_steps if amount < 1 else amount)
