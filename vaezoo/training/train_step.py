"""One training step: every phase of the loss in order, each updates only its own parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vaezoo.data.base import Batch
from vaezoo.distributed import is_sharded, raise_peer_errors, world_size
from vaezoo.distributed.fsdp import clip_grad_norm, grad_norm
from vaezoo.errors import OptionError, TrainingError
from vaezoo.losses.base import BaseLoss, LossFunction, LossOutput, Phase, StepContext
from vaezoo.models.base import BaseVAE
from vaezoo.runtime.device import Runtime, autocast
from vaezoo.training.ema import WeightAverages
from vaezoo.training.optimizers import decayed_parameters, lr_scale, make_optimizer
from vaezoo.training.options import TrainOptions
from vaezoo.training.step_guard import StepGuard

_MIN_STEPS_TO_COMPILE = 100_000
"""Shorter runs on a GPU are not compiled: compiling takes up to minutes."""


@dataclass(eq=False)
class TrainStep:
    """The phases of a loss, each with an optimizer.

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
    guard: StepGuard | None = None
    ema: WeightAverages | None = None

    @property
    def is_captured(self) -> bool:
        """Whether steps are replays of a CUDA graph by now."""
        return False

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
        if options.lr_warmup >= max(self.total_steps, 1):
            steps = f"{self.total_steps:,} steps"
            raise OptionError(f"--lr-warmup {options.lr_warmup:g}: the training has only {steps}")
        decayed = decayed_parameters(self.model, self.loss) if options.decay else set()
        self.optimizers = [make_optimizer(p, options, device, decayed) for p in self.phases]
        if options.on_nonfinite == "skip" or options.skip_grad_norm is not None:
            self.guard = StepGuard(
                [self.model, self.loss],
                device,
                skip_nonfinite=options.on_nonfinite == "skip",
                max_norm=options.skip_grad_norm,
            )
        if options.ema is not None:
            self.ema = WeightAverages(self.model, options.ema)

    def __call__(self, batch: Batch, context: StepContext, step: int) -> Tensor:
        """Take step number `step` (from 0), which is context.global_step on the host."""
        batch = to_channels_last(batch)
        self.set_lr(step)
        self.model.on_train_step(context.global_step)
        if self.guard is not None:
            self.guard.begin()
        parts = split_batch(batch, self.options.accumulate)
        named: dict[str, Tensor] = {}
        for number, (phase, optimizer) in enumerate(zip(self.phases, self.optimizers, strict=True)):
            terms = self._compute_gradients(number, parts, context)
            if self.options.decay:  # a missing gradient counts as 0, as with several processes
                for parameter in (p for p in phase.parameters if p.grad is None):
                    parameter.grad = torch.zeros_like(parameter)
            average_gradients(phase.parameters)
            norm = None
            if self.options.grad_clip is not None or self.options.skip_grad_norm is not None:
                norm = grad_norm(phase.parameters)
            if self.options.grad_clip is not None and norm is not None:
                clip_grad_norm(phase.parameters, self.options.grad_clip, norm)
            if self.guard is None:
                optimizer.step()
            else:
                self.guard.step(optimizer, terms[self.loss_names[number]], norm)
            optimizer.zero_grad(set_to_none=True)
            for name, value in terms.items():
                key = f"{phase.name}_{name}" if name in named else name  # an earlier phase has it
                named[key] = value
        if self.guard is not None:
            self.guard.end()
        if self.ema is not None:
            self.ema.update(context.global_step, None if self.guard is None else self.guard.bad)
        self.names = self.names or tuple(named)
        return torch.stack(list(named.values()))

    def weights(self) -> dict[str, Tensor]:
        """The state of the model that evaluation uses: with --ema, the averages."""
        return {**self.model.state_dict(), **({} if self.ema is None else self.ema.averages)}

    def _compute_gradients(
        self, number: int, parts: Sequence[Batch], context: StepContext
    ) -> dict[str, Tensor]:
        """The gradients of a phase; returns the means of its loss and terms, 0-dim each."""
        sums: dict[str, Tensor] = {}
        for part in parts:
            output = self._compute_loss(number, part, context)
            share = output.loss / len(parts) if len(parts) > 1 else output.loss
            self._backward(self.phases[number], share)
            for name, value in {self.loss_names[number]: output.loss, **output.terms}.items():
                mean = value.detach().float().mean()
                sums[name] = sums[name] + mean if name in sums else mean
        return {name: total / len(parts) for name, total in sums.items()} if parts[1:] else sums

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
        factor = lr_scale(self.options, step, self.total_steps)
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


def split_batch(batch: Batch, count: int) -> list[Batch]:
    """The batch in `count` parts of one size, which must divide it."""
    if count == 1:
        return [batch]
    size = len(batch.x) // count
    labels = [None] * count if batch.y is None else batch.y.split(size)
    return [Batch(x, y) for x, y in zip(batch.x.split(size), labels, strict=True)]


def should_compile(options: TrainOptions, device: torch.device, total_steps: int) -> bool:
    """Whether to compile the loss functions: as asked, or for `auto` in long runs on a GPU."""
    if options.compile == "auto":
        return device.type == "cuda" and total_steps >= _MIN_STEPS_TO_COMPILE
    return options.compile == "on"


def first_line(error: BaseException) -> str:
    """The type of an error and the first line of its message."""
    message = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {message[0][:120]}"


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
