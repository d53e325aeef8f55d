"""A training step for a loop of your own, without a Trainer and without a run folder."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor

from vaezoo.checkpoint.format import (
    load_into,
    load_optimizers,
    optimizer_tensors,
    random_state,
    set_random_state,
)
from vaezoo.data.base import Batch
from vaezoo.distributed import world_size
from vaezoo.distributed.launch import resolve_runtime
from vaezoo.errors import DataError, OptionError, RunError, VaezooWarning
from vaezoo.losses.base import StepContext, loss_of
from vaezoo.models.base import BaseVAE
from vaezoo.options import check_arguments, parse
from vaezoo.runtime.device import evaluation_mode, move_module, precision_context, tune_malloc
from vaezoo.training.cuda_graph import make_train_step as make_step
from vaezoo.training.options import TrainOptions
from vaezoo.training.state import load_tensors

_OPTIONS = (
    *("optimizer", "lr", "momentum", "adam_beta2", "weight_decay", "schedule", "lr_warmup"),
    *("lr_milestones", "ema", "grad_clip", "skip_grad_norm", "on_nonfinite", "accumulate"),
    *("device", "precision", "compile", "graph", "deterministic"),
)
"""The options of training that concern a step."""


class ManualTrainStep:
    """Takes the training steps of a model: all phases of its loss, as `vaezoo.train` takes them.

    Calling it takes one step. model: the model that is trained, on the device. taken: the number of
    steps so far.
    """

    def __init__(
        self, model: BaseVAE, steps: int, num_examples: int, options: TrainOptions
    ) -> None:
        self.model, self.loss = model, loss_of(model)
        self.steps, self.num_examples, self.options = steps, num_examples, options
        runtime = resolve_runtime(options.device, options.precision)
        for module in (self.model, self.loss):
            move_module(module, runtime.device).train()
        tune_malloc()
        self._step = make_step(model, self.loss, options, runtime, steps, _warn)
        self.taken = 0
        self._global_step = torch.zeros((), dtype=torch.int64, device=runtime.device)

    def __call__(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """Take one step, and return the loss and its terms in nats per example, 0-dim tensors.

        x: [batch, *shape], float in [0, 1], standardised if the data is real-valued, or counts. y:
        class numbers, [batch], which conditional models need. Both are moved to the device. The
        terms stay there: float(term) waits for it.

        DataError for a batch that does not fit. OptionError after the last step.
        """
        if self.taken == self.steps:
            raise OptionError(f"all {self.steps:,} steps are taken: give more to make_train_step")
        self._check(x, y)
        device = self.model.device
        y = None if y is None else y.to(device, non_blocking=True).long()
        batch = Batch(x.to(device, non_blocking=True).float(), y)
        self.model.train()
        context = StepContext(self._global_step, self.steps, self.num_examples)
        with precision_context(self._step.runtime.precision, self.options.deterministic):
            values = self._step(batch, context, self.taken)
        self.taken += 1
        self._global_step += 1
        # A CUDA graph writes the values of every step to the same memory.
        return dict(zip(self._step.names, values.clone().unbind(), strict=True))

    def _check(self, x: Tensor, y: Tensor | None) -> None:
        shape, least = self.model.data.shape, self.model.min_batch_size * self.options.accumulate
        if x.shape[1:] != shape or not x.is_floating_point():
            expected = f"float, [batch, {', '.join(map(str, shape))}]"
            raise DataError(f"x is not {expected}: it is {x.dtype}, {list(x.shape)}")
        if len(x) < least or len(x) % self.options.accumulate:
            parts = f"{self.options.accumulate} parts of {self.model.min_batch_size} or more"
            raise DataError(f"a batch of {len(x)} is too small, or has no {parts} of one size")
        if y is None and self.model.conditional:
            raise DataError("this model is conditional: give y, the class number of each example")

    @property
    def skipped(self) -> int:
        """How many steps on_nonfinite="skip" and skip_grad_norm left out. Waits for the device."""
        return 0 if self._step.guard is None else self._step.guard.read()[0]

    @contextmanager
    def evaluation(self) -> Iterator[BaseVAE]:
        """The model for evaluation in the body: with the averages of `ema`, without gradients."""
        ema = self._step.ema
        averages = nullcontext() if ema is None else ema.applied()
        with evaluation_mode(self.model, self.loss), torch.no_grad(), averages:
            yield self.model

    def weights(self) -> dict[str, Tensor]:
        """The state of the model for evaluation, to save; a run can start with it (init_from)."""
        return {name: value.detach().clone() for name, value in self._step.weights().items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of all that the steps change and of the states of torch's random generators."""
        return {
            f"{part}/{name}": tensor.detach().clone()
            for part, tensors in self._parts().items()
            for name, tensor in tensors.items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load what `state_dict` returned. RunError if it does not fit this model and options."""
        if self._step.is_captured:  # it reads optimizer states at fixed addresses
            raise RunError("load a state before the first steps: they are a CUDA graph by now")
        own, where = self._parts(), Path("this state")
        parts: dict[str, dict[str, Tensor]] = {part: {} for part in own}
        for name, tensor in state.items():
            part, _, rest = name.partition("/")
            parts.setdefault(part, {})[rest] = tensor
        if parts.keys() != own.keys() or "cpu" not in parts["random"]:
            raise RunError(f"{where} does not fit: it is of other options of make_train_step")
        load_into(self.model, parts["model"], where)
        load_into(self.loss, parts["loss"], where)
        load_optimizers(self._step.optimizers, parts["optimizers"], where)
        for part in own.keys() & {"guard", "ema", "steps"}:
            load_tensors(own[part], parts[part], where)
        set_random_state(parts["random"], self.model.device)
        self.taken = int(self._global_step)

    def _parts(self) -> dict[str, Mapping[str, Tensor]]:
        parts: dict[str, Mapping[str, Tensor]] = {
            "model": self.model.state_dict(),
            "loss": self.loss.state_dict(),
            "optimizers": optimizer_tensors(self._step.optimizers),
            "random": random_state(self.model.device),
            "steps": {"taken": self._global_step},
        }
        if self._step.guard is not None:
            parts["guard"] = self._step.guard.state_dict()
        if self._step.ema is not None:
            parts["ema"] = self._step.ema.averages
        return parts


def _warn(line: str) -> None:
    warnings.warn(line, VaezooWarning, stacklevel=2)


@check_arguments
def make_train_step(
    model: BaseVAE, *, steps: PositiveInt, num_examples: PositiveInt | None = None, **options: Any
) -> ManualTrainStep:
    """Make the training step of a model of `create_model`, for a loop of your own.

    The same batches and options give the same bits as `vaezoo.train`, which seeds torch with its
    `seed` before it builds the model. A loss that is not finite does not raise here: look at the
    terms, or give on_nonfinite="skip".

    steps: how many will be taken, which schedules need. num_examples: of the training data, for
    losses that need it; by default that of the data that the model was created with.
    options: of training that concern a step: lr, optimizer, schedule, ema, grad_clip, accumulate,
        precision, device, ...

    OptionError for another option, and in a job of several processes.
    """
    for name in options:
        if name in TrainOptions.model_fields and name not in _OPTIONS:
            raise OptionError(f"{name} is no option of a step, only of vaezoo.train")
    parsed = parse(TrainOptions, options, "training")
    if world_size() > 1:
        raise OptionError("make_train_step is for one process: vaezoo.train trains with several")
    count = num_examples or model.data.num_examples
    if not count:
        raise OptionError("give num_examples, the number of training examples")
    return ManualTrainStep(model, steps, count, parsed)
