"""One training step: every phase of the loss in order, each updates only its own parameters."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vaezoo.data.base import Batch
from vaezoo.distributed import all_reduce, is_sharded, raise_peer_errors, world_size
from vaezoo.distributed.fsdp import all_finite, clip_grad_norm
from vaezoo.errors import OptionError, TrainingError
from vaezoo.losses.base import BaseLoss, LossFunction, LossOutput, Phase, StepContext
from vaezoo.models.base import BaseVAE
from vaezoo.runtime.device import Runtime, autocast
from vaezoo.training.options import TrainOptions

_MIN_STEPS_TO_COMPILE = 100_000
"""Shorter runs on a GPU are not compiled: compiling takes up to minutes."""


class Adam(torch.optim.Adam):
    """torch.optim.Adam, equal to the bit, that does not import `torch._dynamo`.

    torch wraps the methods of optimizers for torch.compile. The first call of a wrapped method
    imports `torch._dynamo`, which takes two of the six seconds before the first training step. Here
    the methods are unwrapped: only losses are compiled, never optimizers.
    """

    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)


@dataclass(eq=False)
class TrainStep:
    """The phases of a loss, each with an Adam optimizer.

    Calling it returns the loss and the terms of each phase, [terms], on the device; after the
    first step `names` has their names. note: called with a line for the user.
    """

    model: BaseVAE
    loss: BaseLoss
    options: TrainOptions
    runtime: Runtime
    total_steps: int
    note: Callable[[str], None]
    names: tuple[str, ...] = ()
    guard: NonFiniteGuard | None = None

    def __post_init__(self) -> None:
        options, device = self.options, self.runtime.device
        self.phases = [p for p in self.loss.phases(self.model) if len(p.parameters)]
        if not self.phases:
            raise TrainingError("there is nothing to train: no phase of the loss has parameters")
        several = len(self.phases) > 1
        self.loss_names = [f"{p.name}_loss" if several else "loss" for p in self.phases]
        self.loss_fns: list[LossFunction] = [phase.loss_fn for phase in self.phases]
        self.compiling = should_compile(options, device, self.total_steps)
        if self.compiling:
            self.loss_fns = [torch.compile(loss_fn) for loss_fn in self.loss_fns]
        on_gpu = device.type == "cuda"
        self.optimizers: list[torch.optim.Optimizer] = [
            Adam(
                list(phase.parameters),
                # A CUDA graph reads it, so on a GPU it is a tensor.
                lr=torch.tensor(options.lr, device=device) if on_gpu else options.lr,
                betas=phase.betas or (0.9, options.adam_beta2),
                # Fused and foreach kernels cannot mix sharded and full tensors.
                fused=device.type != "mps" and not options.shard,
                foreach=False if options.shard else None,
                capturable=on_gpu,
            )
            for phase in self.phases
        ]
        if options.on_nonfinite == "skip":
            if options.shard or (not on_gpu and device.type != "cpu"):
                where = "with --shard" if options.shard else f"on {device}"
                raise OptionError(f"--on-nonfinite skip does not work {where}: give stop")
            self.guard = NonFiniteGuard([self.model, self.loss], device)

    def __call__(self, batch: Batch, context: StepContext, step: int) -> Tensor:
        """Take step number `step` (from 0), which is context.global_step on the host."""
        batch = to_channels_last(batch)
        self.set_lr(step)
        self.model.on_train_step(context.global_step)
        if self.guard is not None:
            self.guard.begin()
        named: dict[str, Tensor] = {}
        for number, (phase, optimizer) in enumerate(zip(self.phases, self.optimizers, strict=True)):
            output = self._compute_loss(number, batch, context)
            self._backward(phase, output.loss)
            average_gradients(phase.parameters)
            if self.guard is not None:
                self.guard.check(optimizer, output.loss, phase.parameters)
            if self.options.grad_clip is not None:
                clip_grad_norm(phase.parameters, self.options.grad_clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            for name, value in {self.loss_names[number]: output.loss, **output.terms}.items():
                key = f"{phase.name}_{name}" if name in named else name  # an earlier phase has it
                named[key] = value.detach().float().mean()
        if self.guard is not None:
            self.guard.end()
        self.names = self.names or tuple(named)
        return torch.stack(list(named.values()))

    def _backward(self, phase: Phase, loss: Tensor) -> None:
        """Compute gradients of the phase's own parameters only."""
        own = list(phase.parameters)
        if not self.options.shard:
            loss.backward(inputs=own)
            return
        loss.backward()  # FSDP gives gradients to all sharded layers, also with `inputs`
        for other in {*self.model.parameters(), *self.loss.parameters()} - {*own}:
            other.grad = None

    def set_lr(self, step: int) -> None:
        """Set the learning rate of every optimizer for a step (from 0)."""
        if self.runtime.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return  # a graph reads what was set before it was replayed
        factor = lr_scale(self.options.schedule, step, self.total_steps)
        for phase, optimizer in zip(self.phases, self.optimizers, strict=True):
            for group in optimizer.param_groups:
                rate = self.options.lr * phase.lr_scale * factor
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(rate)
                else:
                    group["lr"] = rate

    def _compute_loss(self, number: int, batch: Batch, context: StepContext) -> LossOutput:
        if self.compiling and number == 0:
            self.note("compiling the loss, which takes up to minutes")
        state = torch.get_rng_state() if self.compiling else None
        try:
            output = self._run(number, batch, context)
        except Exception as error:  # any error of the compiler; a real one comes again
            if state is None:
                raise
            self.note(f"--compile failed, training continues without it: {first_line(error)}")
            torch.set_rng_state(state)
            self.loss_fns = [phase.loss_fn for phase in self.phases]
            self.compiling = False
            return self._run(number, batch, context)
        if number == len(self.phases) - 1:
            self.compiling = False  # every phase is compiled: from now on errors are real
        return output

    def _run(self, number: int, batch: Batch, context: StepContext) -> LossOutput:
        with autocast(self.runtime.precision, self.runtime.device):
            return self.loss_fns[number](self.model, batch, context)


def to_channels_last(batch: Batch) -> Batch:
    """The batch with images in channels-last memory format, as the networks have it."""
    if batch.x.dim() != 4:
        return batch
    return Batch(batch.x.contiguous(memory_format=torch.channels_last), batch.y)


def should_compile(options: TrainOptions, device: torch.device, total_steps: int) -> bool:
    """Whether to compile the loss functions: as asked, or for `auto` in long runs on a GPU."""
    if options.compile == "auto":
        return device.type == "cuda" and total_steps >= _MIN_STEPS_TO_COMPILE
    return options.compile == "on"


def first_line(error: BaseException) -> str:
    """The type of an error and the first line of its message."""
    message = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {message[0][:120]}"


def lr_scale(schedule: str, step: int, total_steps: int) -> float:
    """The factor of the learning rate at a step (from 0): 1, or falling from 1 to nearly 0."""
    done = step / total_steps
    if schedule == "linear":
        return 1.0 - done
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done))
    return 1.0


@torch.no_grad()
def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Average gradients over the ranks, with one all-reduce for each dtype.

    A missing gradient counts as 0, so that all ranks send messages of one size. FSDP has averaged
    the gradients of sharded layers already.
    """
    if world_size() == 1:
        return
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for parameter in parameters:
        if not is_sharded(parameter):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            by_dtype.setdefault(parameter.grad.dtype, []).append(parameter.grad)
    for dtype in sorted(by_dtype, key=str):
        flat = torch.cat([gradient.reshape(-1) for gradient in by_dtype[dtype]])
        with raise_peer_errors():
            dist.all_reduce(flat)
        flat.div_(world_size())
        parts = flat.split([gradient.numel() for gradient in by_dtype[dtype]])
        for gradient, part in zip(by_dtype[dtype], parts, strict=True):
            gradient.copy_(part.view_as(gradient))


MAX_EXCESS = 20.0
"""The largest number of skipped steps above the allowed rate."""
ALLOWED_RATE = 0.05
"""The fraction of steps that may always be skipped."""


class NonFiniteGuard(nn.Module):
    """Skips a step on the device if its loss or a value of a gradient is not finite.

    It sets the optimizer's `found_inf`: a fused optimizer then leaves its parameters and its state
    as they are. Buffers that the forward pass changed (batch norm, codebooks) are restored.

    All counts are 0-dim tensors on the device. skipped: the number of skipped steps, int64.
    excess: how many more were skipped than ALLOWED_RATE allows; at least 0. max_excess: its maximum
    since the last `read`.
    """

    skipped: Tensor
    excess: Tensor
    max_excess: Tensor

    def __init__(self, modules: Sequence[nn.Module], device: torch.device) -> None:
        super().__init__()
        self._watched = [buffer for module in modules for buffer in module.buffers()]
        self._before = [buffer.clone() for buffer in self._watched]
        self._bad = torch.zeros((), device=device)
        self.register_buffer("skipped", torch.zeros((), dtype=torch.int64, device=device))
        self.register_buffer("excess", torch.zeros((), device=device))
        self.register_buffer("max_excess", torch.zeros((), device=device))

    def begin(self) -> None:
        """Call this before the forward pass of a step."""
        self._bad.zero_()
        for before, buffer in zip(self._before, self._watched, strict=True):
            before.copy_(buffer)

    def check(
        self, optimizer: torch.optim.Optimizer, loss: Tensor, parameters: Sequence[nn.Parameter]
    ) -> None:
        """Call this before an optimizer's step: it makes the step a no-op if it must be skipped."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        finite = all_finite([loss.detach(), *gradients])
        found = all_reduce((~finite).float()).clamp(max=1.0)  # in all processes, if in one
        optimizer.found_inf = found  # type: ignore[attr-defined]
        self._bad.copy_(torch.maximum(self._bad, found))

    def end(self) -> None:
        """Call this after the last phase of a step."""
        for before, buffer in zip(self._before, self._watched, strict=True):
            buffer.copy_(torch.where(self._bad > 0, before, buffer))
        self.skipped += self._bad.to(torch.int64)
        self.excess.add_(torch.where(self._bad > 0, 1.0, -ALLOWED_RATE)).clamp_(min=0.0)
        self.max_excess.copy_(torch.maximum(self.max_excess, self.excess))

    def read(self) -> tuple[int, bool]:
        """The number of skipped steps, and whether they are too many. Waits for the device."""
        counts = torch.stack([self.skipped.double(), self.max_excess.double()]).tolist()
        self.max_excess.copy_(self.excess)
        return int(counts[0]), counts[1] > MAX_EXCESS
