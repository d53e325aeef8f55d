"""The workload of a benchmark: a model on a device, with one step in one mode."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import torch
from torch import Tensor

from vaezoo.bench.job import Case, Job
from vaezoo.config import build_config, resolve_components, split_by_section
from vaezoo.data.base import Batch, TensorSplit
from vaezoo.data.loader import BatchLoader
from vaezoo.data.spec import DataSpec
from vaezoo.errors import OptionError
from vaezoo.losses.base import StepContext, loss_of
from vaezoo.models.distributions import mode
from vaezoo.runs.build import build_model
from vaezoo.runtime.device import Runtime, autocast
from vaezoo.training.cuda_graph import make_train_step
from vaezoo.training.options import TrainOptions

_EXAMPLES = 50_000
_STEPS = 1_000_000
"""Length of the training that schedules see; they are measured in its middle."""
_CLASSES = tuple(f"class {number}" for number in range(10))


class Workload:
    """A model on a device with its input, in one mode; `step` is what is timed.

    The input is noise in [0, 1]: the time of these networks does not depend on the values.
    """

    def __init__(self, job: Job, case: Case, device: torch.device) -> None:
        self.case = case
        self.device = device
        self.notes: list[str] = []
        data = DataSpec(shape=job.shape, class_names=_CLASSES, num_examples=_EXAMPLES)
        components = resolve_components(job.model, job.loss, None, {})
        config = build_config(components, {}, split_by_section(components, job.options))
        self.model = build_model(components, config.model, config.loss, data)
        if case.batch_size < self.model.min_batch_size:
            raise OptionError(f"{job.model} needs a batch of {self.model.min_batch_size} or more")
        loss = loss_of(self.model)
        for module in (self.model, loss):
            module.to(device).to(memory_format=torch.channels_last)
        step = torch.tensor(_STEPS // 2, device=device)
        self.context = StepContext(step, _STEPS, num_examples=_EXAMPLES)
        self.batch = self._noise(job)
        self.batches = self._stream(job) if job.end_to_end else None
        self.model.train(case.mode == "train")
        if case.mode == "train":
            self.train_step = make_train_step(
                self.model,
                loss,
                TrainOptions(compile=case.compile, batch_size=case.batch_size),
                runtime=Runtime(device, case.precision),
                total_steps=_STEPS,
                note=self.notes.append,
            )
            return
        with torch.no_grad():
            self.z = mode(self.model.encode(self.batch.x, self.model.labels(self.batch.y)))
        self.forward = torch.compile(self._forward) if case.compile == "on" else self._forward

    def step(self) -> object:
        """What is timed: a full training step, or one forward pass of the mode."""
        if self.case.mode == "train":
            batch = next(self.batches) if self.batches else self.batch
            return self.train_step(batch, self.context, _STEPS // 2)
        with torch.no_grad(), autocast(self.case.precision, self.device):
            return self.forward()

    @property
    def uses_cuda_graph(self) -> bool:
        """Whether the steps are replays of a CUDA graph by now."""
        return self.case.mode == "train" and getattr(self.train_step, "recorded", False)

    def countable_step(self) -> object:
        """The step without the optimizer, which has no matrix products to count."""
        if self.case.mode != "train":
            with torch.no_grad():
                return self._forward()
        for phase in self.train_step.phases:
            output = phase.loss_fn(self.model, self.batch, self.context)
            output.loss.backward(inputs=list(phase.parameters))
        return None

    def _forward(self) -> Tensor:
        y = self.model.labels(self.batch.y)
        if self.case.mode == "encode":
            return mode(self.model.encode(self.batch.x, y))
        if self.case.mode == "decode":
            return self.model.decode(self.z, y).mean
        return self.model.sample(self.case.batch_size, y)

    def _noise(self, job: Job) -> Batch:
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(self.case.batch_size, *job.shape, generator=generator).to(self.device)
        y = torch.arange(self.case.batch_size) % len(_CLASSES)
        return Batch(x.contiguous(memory_format=torch.channels_last), y.to(self.device))

    def _stream(self, job: Job) -> Iterator[Batch]:
        """Shuffled batches of 8-bit images, as training has them, without end."""
        examples = max(2 * self.case.batch_size, 4096)
        images = torch.randint(0, 256, (examples, *job.shape), dtype=torch.uint8)
        split = TensorSplit(images, torch.arange(examples) % len(_CLASSES))
        loader = BatchLoader(split, batch_size=self.case.batch_size, device=self.device)
        for epoch in count():
            yield from loader.epoch(epoch)
