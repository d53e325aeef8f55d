"""A training step as one CUDA graph: the host hands over one launch instead of some hundreds.

At small batches a step on a GPU is bound by the host that launches its kernels. Recorded once and
replayed, the whole step (every phase, its optimizer included) is one launch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vaezoo.data.base import Batch
from vaezoo.distributed import world_size
from vaezoo.errors import OptionError
from vaezoo.losses.base import BaseLoss, StepContext
from vaezoo.models.base import BaseVAE
from vaezoo.training.options import TrainOptions
from vaezoo.training.train_step import TrainStep, first_line

_WARM_UP_STEPS = 3
"""Steps taken as usual first: libraries choose their kernels and optimizers make their state."""


class CUDAGraphStep(TrainStep):
    """Updates whose steps, after a few, are replays of a recorded one.

    Batches of another shape than the recorded one are stepped through as usual. A model that
    cannot be recorded (it reads a value back, or its control flow follows from data) costs one
    line, and is stepped through as usual from then on. What a step reads lies at fixed places:
    the batch is copied into them, the step number is the trainer's own tensor, and the learning
    rates are tensors of the optimizers.
    """

    _graph: torch.cuda.CUDAGraph | None = None
    _place: Batch
    _values: Tensor
    _taken = 0
    _recordable = True

    @property
    def recorded(self) -> bool:
        """Whether steps are replays by now."""
        return self._graph is not None

    def __call__(self, batch: Batch, context: StepContext, step: int) -> Tensor:
        if not self._recordable or (self._graph and not self._fits(batch)):
            return super().__call__(batch, context, step)
        if self._taken < _WARM_UP_STEPS:
            self._taken += 1
            return self._warm_up(batch, context, step)
        if self._graph is None:
            self._record(batch, context, step)
            if self._graph is None:
                return super().__call__(batch, context, step)
        self._fill(batch)
        self.set_lr(step)
        self._graph.replay()
        return self._values

    def _warm_up(self, batch: Batch, context: StepContext, step: int) -> Tensor:
        """A step on a stream of its own, as recording asks for."""
        main = torch.cuda.current_stream(self.device)
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(main)
        with torch.cuda.stream(stream):
            values = super().__call__(batch, context, step)
        main.wait_stream(stream)
        values.record_stream(main)
        return values

    def _record(self, batch: Batch, context: StepContext, step: int) -> None:
        """Record a step without taking it; nothing is recorded where that fails."""
        laid_out = self.to_channels_last(batch)
        self._place = Batch(laid_out.x.clone(), None if laid_out.y is None else laid_out.y.clone())
        random = torch.cuda.get_rng_state(self.device)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._values = super().__call__(self._place, context, step)
        except Exception as error:  # whatever recording makes of what the model does
            self._recordable = False
            for optimizer in self.optimizers:
                optimizer.zero_grad(set_to_none=True)
            torch.cuda.synchronize(self.device)
            torch.cuda.set_rng_state(random, self.device)
            self.note(f"goes on without a CUDA graph: {first_line(error)}")
            return
        self._graph = graph

    def _fits(self, batch: Batch) -> bool:
        place = self._place
        return batch.x.shape == place.x.shape and (batch.y is None) == (place.y is None)

    def _fill(self, batch: Batch) -> None:
        self._place.x.copy_(batch.x)
        if self._place.y is not None and batch.y is not None:
            self._place.y.copy_(batch.y)


def make_train_step(
    model: BaseVAE,
    loss: BaseLoss,
    options: TrainOptions,
    *,
    device: torch.device,
    precision: str,
    total_steps: int,
    note: Callable[[str], None],
) -> TrainStep:
    """The steps of a run: recorded ones on a GPU unless the options say otherwise.

    OptionError when a graph is asked for where there are none. Processes that share their steps
    take them as usual: what they send one another is in no graph.
    """
    if options.graph == "on" and device.type != "cuda":
        raise OptionError(f"--graph on: {device} has no CUDA graphs; give auto, or off")
    if options.graph == "on" and world_size() > 1:
        raise OptionError("--graph on: several processes share each step; give auto, or off")
    graphed = device.type == "cuda" and options.graph != "off" and world_size() == 1
    return (CUDAGraphStep if graphed else TrainStep)(
        model,
        loss,
        options,
        device=device,
        precision=precision,
        total_steps=total_steps,
        note=note,
    )
