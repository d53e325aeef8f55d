"""A training step as one CUDA graph: one launch instead of some hundreds.

At small batches the host that launches kernels limits a step on a GPU. A graph of the whole step,
with every phase and optimizer, is captured once and replayed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vaezoo.data.base import Batch
from vaezoo.errors import OptionError
from vaezoo.losses.base import BaseLoss, StepContext
from vaezoo.models.base import BaseVAE
from vaezoo.runtime.device import Runtime
from vaezoo.training.options import TrainOptions
from vaezoo.training.train_step import TrainStep, first_line, to_channels_last

_WARM_UP_STEPS = 3
"""Eager steps before the capture: libraries choose kernels and optimizers create their state."""


class CUDAGraphStep(TrainStep):
    """A training step that replays a CUDA graph after a few eager steps.

    A batch of another shape takes an eager step. If the capture fails (the model reads a value
    back, or has data-dependent control flow), all steps are eager and the user gets one line. A
    graph reads fixed addresses: the batch is copied to one, the step number is the trainer's own
    tensor, and the learning rates are tensors of the optimizers.
    """

    _graph: torch.cuda.CUDAGraph | None = None
    _static_batch: Batch
    _values: Tensor
    _taken = 0
    _capturable = True

    @property
    def is_captured(self) -> bool:
        return self._graph is not None

    def __call__(self, batch: Batch, context: StepContext, step: int) -> Tensor:
        if self._graph is None and self._capturable:
            if self._taken < _WARM_UP_STEPS:
                self._taken += 1
                return self._warm_up(batch, context, step)
            self._capture(batch, context, step)
        static = self._static_batch
        fits = batch.x.shape == static.x.shape and (batch.y is None) == (static.y is None)
        if self._graph is None or not fits:
            return super().__call__(batch, context, step)
        static.x.copy_(batch.x)
        if static.y is not None and batch.y is not None:
            static.y.copy_(batch.y)
        self.set_lr(step)
        self._graph.replay()
        return self._values

    def _warm_up(self, batch: Batch, context: StepContext, step: int) -> Tensor:
        """An eager step on a side stream, which a capture needs before it."""
        main = torch.cuda.current_stream(self.runtime.device)
        stream = torch.cuda.Stream(self.runtime.device)
        stream.wait_stream(main)
        with torch.cuda.stream(stream):
            values = super().__call__(batch, context, step)
        main.wait_stream(stream)
        values.record_stream(main)
        return values

    def _capture(self, batch: Batch, context: StepContext, step: int) -> None:
        """Capture a step without taking it. If that fails, `_graph` stays None."""
        batch, device = to_channels_last(batch), self.runtime.device
        self._static_batch = Batch(batch.x.clone(), None if batch.y is None else batch.y.clone())
        rng_state, graph = torch.cuda.get_rng_state(device), torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._values = super().__call__(self._static_batch, context, step)
        except Exception as error:  # any error that a capture can cause
            self._capturable = False
            for optimizer in self.optimizers:
                optimizer.zero_grad(set_to_none=True)
            torch.cuda.synchronize(device)
            torch.cuda.set_rng_state(rng_state, device)
            self.note(f"no CUDA graph, training continues without it: {first_line(error)}")
            return
        self._graph = graph


def make_train_step(
    model: BaseVAE,
    loss: BaseLoss,
    options: TrainOptions,
    runtime: Runtime,
    total_steps: int,
    note: Callable[[str], None],
) -> TrainStep:
    """The training step of a run: a CUDA graph on a GPU unless the options say otherwise.

    OptionError if --graph on cannot be done. Several ranks use no graph, because their
    communication cannot be captured.
    """
    problem = ""
    if runtime.device.type != "cuda":
        problem = f"{runtime.device} has no CUDA graphs"
    elif runtime.world_size > 1:
        problem = "several processes share each step"
    if options.graph == "on" and problem:
        raise OptionError(f"--graph on: {problem}; give auto, or off")
    step_class = TrainStep if problem or options.graph == "off" else CUDAGraphStep
    return step_class(model, loss, options, runtime, total_steps, note)
