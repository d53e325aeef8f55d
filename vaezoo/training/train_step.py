"""One training step: every phase of the loss in order, each updates only its own parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vaezoo.data.base import Batch
from vaezoo.distributed import is_sharded, raise_peer_errors, world_size
from vaezoo.distributed.fsdp import clip_grad_norm
from vaezoo.errors import OptionError, TrainingError
from vaezoo.losses.base import BaseLoss, LossFunction, LossOutput, Phase, StepContext
from vaezoo.models.base import BaseVAE
from vaezoo.runtime.device import autocast
from vaezoo.training.nonfinite import Guard
from vaezoo.training.optimizer import Adam
from vaezoo.training.options import TrainOptions

_PAYS_FROM = 100_000
"""Steps from which compiling on a GPU is taken to pay: it costs up to minutes."""


class TrainStep:
    """The phases of a loss with an optimizer each.

    Calling it takes one step and returns the values of that step, [terms], on the device: the
    objective and the terms of each phase, named by `names` after the first step.
    """

    def __init__(
        self,
        model: BaseVAE,
        loss: BaseLoss,
        options: TrainOptions,
        *,
        device: torch.device,
        precision: str,
        total_steps: int,
        note: Callable[[str], None],
    ) -> None:
        self.model, self.loss = model, loss
        self.options = options
        self.device = device
        self.precision = precision
        self.total_steps = total_steps
        self.note = note
        self.phases = [phase for phase in loss.phases(model) if len(phase.parameters)]
        if not self.phases:
            raise TrainingError("there is nothing to train: no phase of the loss has parameters")
        self.objectives: list[LossFunction] = [phase.loss_fn for phase in self.phases]
        self.trying_to_compile = compiles(options, device, total_steps)
        if self.trying_to_compile:
            self.objectives = [torch.compile(objective) for objective in self.objectives]
        on_gpu = device.type == "cuda"
        self.optimizers: list[torch.optim.Optimizer] = [
            Adam(
                list(phase.parameters),
                # On a GPU it is a tensor that a recorded step can read.
                lr=torch.tensor(options.lr, device=device) if on_gpu else options.lr,
                betas=phase.betas or (0.9, options.adam_beta2),
                # Parts and wholes go into no kernel together.
                fused=device.type != "mps" and not options.shard,
                foreach=False if options.shard else None,
                capturable=on_gpu,
            )
            for phase in self.phases
        ]
        self.names: tuple[str, ...] = ()
        self.guard: Guard | None = None
        if options.on_nonfinite == "skip":
            if options.shard or (not on_gpu and device.type != "cpu"):
                where = "a sharded model" if options.shard else device
                raise OptionError(f"--on-nonfinite skip: {where} cannot; give stop")
            self.guard = Guard([model, loss], device)

    def __call__(self, batch: Batch, context: StepContext, step: int) -> Tensor:
        """Take step number `step` (from 0); context.step is the same number on the device."""
        batch = self.to_channels_last(batch)
        self.set_lr(step)
        self.model.on_train_step(context.global_step)
        if self.guard is not None:
            self.guard.begin()
        named: dict[str, Tensor] = {}
        for number, (phase, optimizer) in enumerate(zip(self.phases, self.optimizers, strict=True)):
            output = self._objective(number, batch, context)
            self._backward(phase, output.loss)
            average_gradients(phase.parameters)
            if self.guard is not None:
                self.guard.check_grads(optimizer, phase.parameters)
            if self.options.grad_clip is not None:
                self._clip(phase.parameters, self.options.grad_clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            _collect(named, phase, output, alone=len(self.phases) == 1)
        if self.guard is not None:
            self.guard.end()
        if not self.names:
            self.names = tuple(named)
        return torch.stack(list(named.values()))

    def _backward(self, phase: Phase, objective: Tensor) -> None:
        """Gradients of the phase's own parameters, and of no other's."""
        own = list(phase.parameters)
        if not self.options.shard:
            objective.backward(inputs=own)  # another phase's are not even made
            return
        objective.backward()  # a sharded layer makes its gradients itself, whosever it is
        mine = {*own}
        for other in (*self.model.parameters(), *self.loss.parameters()):
            if other not in mine:
                other.grad = None

    def _clip(self, parameters: Sequence[nn.Parameter], longest: float) -> None:
        if self.options.shard:
            clip_grad_norm(parameters, longest)
        else:
            torch.nn.utils.clip_grad_norm_(parameters, longest)

    def set_lr(self, step: int) -> None:
        """Give every phase's optimizer its learning rate for a step (from 0)."""
        if self.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return  # a recorded step reads what was set before it
        factor = lr_scale(self.options.schedule, step, self.total_steps)
        for phase, optimizer in zip(self.phases, self.optimizers, strict=True):
            for group in optimizer.param_groups:
                rate = self.options.lr * phase.lr_scale * factor
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(rate)
                else:
                    group["lr"] = rate

    def _objective(self, number: int, batch: Batch, context: StepContext) -> LossOutput:
        if not self.trying_to_compile:
            return self._run(number, batch, context)
        state = torch.get_rng_state()
        try:
            output = self._run(number, batch, context)
        except Exception as error:  # whatever the compiler raises; the eager step raises real ones
            self.note(f"goes on without --compile: {first_line(error)}")
            torch.set_rng_state(state)
            self.objectives = [phase.loss_fn for phase in self.phases]
            self.trying_to_compile = False
            return self._run(number, batch, context)
        if number == len(self.phases) - 1:
            self.trying_to_compile = False  # every phase has been through it
        return output

    def _run(self, number: int, batch: Batch, context: StepContext) -> LossOutput:
        with autocast(self.precision, self.device):
            return self.objectives[number](self.model, batch, context)

    def to_channels_last(self, batch: Batch) -> Batch:
        """The batch in the layout of the networks."""
        if batch.x.dim() != 4:
            return batch
        return Batch(batch.x.contiguous(memory_format=torch.channels_last), batch.y)


def compiles(options: TrainOptions, device: torch.device, total_steps: int) -> bool:
    """Whether steps are compiled: as asked, else where a long run on a GPU pays for it.

    It follows from the configuration and the device alone, never from a clock: the same run is
    computed in the same way each time.
    """
    if options.compile == "auto":
        return device.type == "cuda" and total_steps >= _PAYS_FROM
    return options.compile == "on"


def first_line(error: BaseException) -> str:
    """What kind of error it is and how its message begins."""
    message = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {message[0][:120]}"


def lr_scale(schedule: str, step: int, total_steps: int) -> float:
    """What multiplies the learning rate at a step (from 0): from 1 down to nearly 0, or 1."""
    done = step / total_steps
    if schedule == "linear":
        return 1.0 - done
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done))
    return 1.0


def _collect(named: dict[str, Tensor], phase: Phase, output: LossOutput, *, alone: bool) -> None:
    """Put a phase's values with the others; a name that is taken gets the phase's before it."""
    values = {"loss" if alone else f"{phase.name}_loss": output.loss}
    values.update(output.terms)
    for name, value in values.items():
        if name in named:
            name = f"{phase.name}_{name}"
        named[name] = value.detach().float().mean()


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Give every process the mean of the gradients; one message a type of number.

    A parameter that this process has no gradient for counts as 0, so that processes whose
    examples went different ways still send messages of one size. Of a sharded layer the gradients
    are averaged where they are made.
    """
    if world_size() == 1:
        return
    parameters = [parameter for parameter in parameters if not is_sharded(parameter)]
    if not parameters:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    for _, alike in groupby(sorted(gradients, key=_type), key=_type):
        _average(list(alike))


@torch.no_grad()
def _average(tensors: Sequence[Tensor]) -> None:
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    with raise_peer_errors():
        dist.all_reduce(flat)
    flat.div_(world_size())
    parts = flat.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype)
