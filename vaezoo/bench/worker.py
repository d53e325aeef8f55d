"""The subprocess that measures one model: reads a job on stdin, prints one row for each case.

A process of its own, so that a plugin that crashes, hangs or uses up the memory costs its own rows
only, and no model is measured beside what another one left behind.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from vaezoo.bench.counts import Counts, count
from vaezoo.bench.job import Case, Job, bound_by, empty_row, sanity_check
from vaezoo.bench.machine import specified_peak, time_step
from vaezoo.config import build_config, resolve_components
from vaezoo.data.base import Batch, TensorSplit
from vaezoo.data.loader import BatchLoader
from vaezoo.data.spec import DataSpec
from vaezoo.errors import BrokenPluginError, OptionError, VaezooError
from vaezoo.losses.base import StepContext, loss_of
from vaezoo.models.distributions import mode
from vaezoo.runs.build import build_model
from vaezoo.runtime.device import (
    Runtime,
    autocast,
    move_module,
    precision_context,
    resolve_device,
    tune_malloc,
)
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
        components = resolve_components({"model": job.model, **job.names}, {})
        config = build_config(components, {}, job.options)
        self.model = build_model(config, data)
        if case.batch_size < self.model.min_batch_size:
            raise OptionError(f"{job.model} needs a batch of {self.model.min_batch_size} or more")
        loss = loss_of(self.model)
        for module in (self.model, loss):
            move_module(module, device)
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
        return self.case.mode == "train" and self.train_step.is_captured

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
        for epoch in itertools.count():
            yield from loader.epoch(epoch)


_LARGEST_TRIED = 1 << 16
_FEW = 8
"""Examples of the step whose operations are counted: their number does not depend on them."""


def main() -> None:
    # Rows have a file descriptor of their own, since plugins may print to stdout.
    rows = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    job = Job.from_dict(json.load(sys.stdin))
    tune_malloc()
    for case in job.cases:
        print(json.dumps(measure(job, case), allow_nan=False), file=rows, flush=True)


def measure(job: Job, case: Case) -> dict[str, Any]:
    """One row; an error of the model becomes the row's status and reason."""
    try:
        device = resolve_device(job.device)
        if job.largest:
            case = _find_largest_batch(job, case, device)
        return _measure(job, case, device)
    except BrokenPluginError as error:
        status, reason = "failed", str(error)
    except VaezooError as error:
        status, reason = "refused", str(error)
    except (MemoryError, torch.OutOfMemoryError):
        status, reason = "out of memory", "a smaller batch may fit"
    except Exception as error:  # a plugin may raise anything, and the other cases must run
        first = (str(error).strip().splitlines() or [""])[0]
        status, reason = "failed", f"{type(error).__name__}: {first[:200]}"
    return empty_row(job.model, case, status, reason)


def _measure(job: Job, case: Case, device: torch.device) -> dict[str, Any]:
    with precision_context(case.precision, deterministic=False):
        workload = Workload(job, case, device)
        counts = _count(job, case)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        timing = time_step(workload.step, device, windows=job.windows, seconds=job.seconds)
    rate, gemm = counts.flops / timing.step, job.gemm.get(case.precision)
    peak = specified_peak(device, case.precision)
    gemm_share = rate / gemm if gemm and counts.flops else None
    copy_share = counts.bytes / timing.step / job.copy
    at_the_roof = max(counts.flops / gemm if gemm else 0.0, counts.fused_bytes / job.copy)
    enqueue_share = None if device.type == "cpu" else timing.enqueue / timing.step
    # Of the device for a GPU, of the whole process for a CPU.
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated(device)
    row = {
        **empty_row(job.model, case, "ok", "; ".join(workload.notes)),
        "images_per_second": case.batch_size / timing.step,
        "images_per_second_windows": [case.batch_size / window for window in timing.windows],
        "latency_ms": {f"p{percent}": 1e3 * timing.percentile(percent) for percent in (50, 90, 99)},
        "first_step_seconds": timing.first,
        "warm_up_seconds": timing.warm_up,
        "flops_per_image": counts.flops / case.batch_size,
        "flops_missed": counts.missed,
        "bytes_per_image": counts.bytes / case.batch_size,
        "fused_bytes_per_image": counts.fused_bytes / case.batch_size,
        "roof_share": at_the_roof / timing.step,
        "operations": _count_operations(job, case),
        "gemm_share": gemm_share,
        "copy_share": copy_share,
        "peak_share": rate / peak[0] if peak else None,
        "peak_source": peak[1] if peak else None,
        "bound_by": bound_by(gemm_share, copy_share, enqueue_share),
        "graph": workload.uses_cuda_graph,
        "shape": list(job.shape),
        "end_to_end": job.end_to_end and case.mode == "train",
        "parameters": sum(p.numel() for p in workload.model.parameters() if p.requires_grad),
        "peak_memory_bytes": memory,
    }
    problem = sanity_check(row)
    return row if problem is None else {**row, "status": "error", "reason": problem}


def _count(job: Job, case: Case) -> Counts:
    """Counted on meta tensors if the model runs there, else on the CPU."""
    eager = replace(case, compile="off")
    try:
        return count(Workload(job, eager, torch.device("meta")).countable_step)
    except VaezooError:
        raise
    except Exception:  # a model that reads a value back cannot run on meta tensors
        return count(Workload(job, eager, torch.device("cpu")).countable_step)


def _count_operations(job: Job, case: Case) -> int:
    """Of an eager step on the CPU with its optimizer, not the first, which creates its state."""
    few = replace(case, compile="off", batch_size=min(case.batch_size, _FEW))
    workload = Workload(replace(job, end_to_end=False), few, torch.device("cpu"))
    workload.step()
    return count(workload.step).operations


def _find_largest_batch(job: Job, case: Case, device: torch.device) -> Case:
    """The case with the largest batch that fits: its own size, doubled as often as possible."""
    fits: Case | None = None
    while case.batch_size <= _LARGEST_TRIED:
        try:
            workload = Workload(job, case, device)
            workload.step()
            workload.step()
        except (MemoryError, torch.OutOfMemoryError):
            break
        except RuntimeError as error:
            if "allocate" not in str(error):
                raise
            break
        fits = case
        case = replace(case, batch_size=2 * case.batch_size)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    if fits is None:
        raise torch.OutOfMemoryError("not even the smallest batch fits")
    return fits


if __name__ == "__main__":
    main()
