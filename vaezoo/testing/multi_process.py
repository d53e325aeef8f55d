"""Compares the gradients of several processes that share a batch with those of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from vaezoo.checkpoint.format import load_weights, save_weights
from vaezoo.data.base import Batch
from vaezoo.distributed import all_gather, local_chunk, world_size
from vaezoo.distributed.batch_norm import sync_batch_norm
from vaezoo.distributed.fsdp import apply_fsdp, full_state_dict
from vaezoo.losses.base import Phase, loss_of
from vaezoo.options import to_dict
from vaezoo.plugins.registry import registry, subprocess_environment
from vaezoo.runtime.device import Runtime
from vaezoo.testing.check import CheckFailed, CheckSkipped, check, fail_if
from vaezoo.testing.subjects import CPU, ModelWithLoss
from vaezoo.training.train_step import TrainStep


class SameNoise(TorchDispatchMode):
    """Makes random draws the same for one process as for several that share the batch.

    The seed of a draw is its number. A process with `count` examples draws for the whole batch and
    keeps its chunk. The batch axis is the axis of that size, or else one of a multiple of it (for
    folded samples, [samples, count]). Draws without such an axis are the same in all processes.
    `count` should be a prime that is not another size in the model.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.draws = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        self.draws += 1
        torch.manual_seed(self.draws)
        if world_size() == 1:
            return func(*args, **kwargs)
        drawn = func(*map(self._global, args), **kwargs)
        ours = tree_map_only(Tensor, self._local, drawn)
        if func.overloadpacket.__name__.endswith("_"):
            return args[0].copy_(ours)
        return ours

    def _global(self, argument: Any) -> Any:
        """A size, or a parameter of a distribution, for the whole batch."""
        if isinstance(argument, Tensor):
            return self._along(argument, all_gather)
        if isinstance(argument, (list, tuple)) and all(isinstance(n, int) for n in argument):
            axis = self._axis(argument, self.count)
            return [n * world_size() if i == axis else n for i, n in enumerate(argument)]
        return argument

    def _local(self, drawn: Tensor) -> Tensor:
        return self._along(drawn, local_chunk)

    def _along(self, values: Tensor, change: Any) -> Tensor:
        count = self.count * (world_size() if change is local_chunk else 1)
        axis = self._axis(values.shape, count)
        if axis is None:
            return values
        batch_first = values.unflatten(axis, (-1, count)).movedim(axis + 1, 0)
        whole = change(batch_first).movedim(0, axis + 1).flatten(axis, axis + 1)
        return whole.contiguous()  # random_like() draws in the order of the memory

    def _axis(self, shape: Sequence[int], count: int) -> int | None:
        for axis, size in enumerate(shape):
            if size == count:
                return axis
        return next((i for i, size in enumerate(shape) if size and size % count == 0), None)


_LOCAL_BATCH = 7
"""Examples of each process, if the model accepts so few: a prime, see SameNoise."""
_SECONDS = 300
"""Time limit for each subject; long, because a machine may be busy."""
_STEPS = 100
_LR = 1e-6
"""So small that rounding of a zero gradient does not change the gradients of a later phase."""


class GradientJob(NamedTuple):
    """A training step on one batch, whose gradients are computed by one or by several processes."""

    pair: ModelWithLoss
    dtype: torch.dtype
    sharded: bool = False
    """Whether each process holds a part of every layer."""

    def gradients(self, count: int) -> dict[str, Tensor]:
        """The gradients of each phase of a training step, and the buffers after it.

        count: number of processes that share the batch.
        """
        before = torch.get_default_dtype()
        torch.set_default_dtype(self.dtype)
        try:
            return self._gradients(count)
        finally:
            torch.set_default_dtype(before)

    def _gradients(self, count: int) -> dict[str, Tensor]:
        pair, each = self.pair, max(_LOCAL_BATCH, self.pair.model_class.min_batch_size)
        x, y = pair.batch(count * each)
        batch = Batch(local_chunk(x).to(self.dtype), None if y is None else local_chunk(y))
        model = pair.build()
        loss = loss_of(model)
        for module in (model, loss):
            module.to(self.dtype)
        options = pair.train_options.model_copy(update={"lr": _LR})
        if world_size() > 1:
            sync_batch_norm(model, loss)
            if self.sharded:
                apply_fsdp(model, loss, min_numel=1)
                options = options.model_copy(update={"shard": True})
        named = [*model.named_parameters(), *loss.named_parameters("loss")]
        updates = TrainStep(
            model,
            loss,
            options,
            runtime=Runtime(CPU, "fp32"),
            total_steps=_STEPS,
            note=lambda text: None,
        )
        found = {}
        for phase, optimizer in zip(updates.phases, updates.optimizers, strict=True):

            def keep(*_: object, phase: Phase = phase) -> None:
                gradients = {n: p.grad.clone() for n, p in named if p.grad is not None}
                for name, gradient in full_state_dict(gradients).items():
                    if gradient.any():
                        found[f"the gradient of {name} in phase {phase.name}"] = gradient

            optimizer.register_step_pre_hook(keep)
        with SameNoise(each):
            updates(batch, pair.context(0, _STEPS), 0)
        buffers = [*model.named_buffers(), *loss.named_buffers("loss")]
        return {**found, **{f"the buffer {name}": b.to(self.dtype) for name, b in buffers}}

    def difference(self, a: dict[str, Tensor], b: dict[str, Tensor]) -> str | None:
        """The first tensor that differs by more than rounding, or None."""
        if a.keys() != b.keys():
            return f"{min(a.keys() ^ b.keys())} is missing in some processes"
        fine = self.dtype == torch.float64
        for name, values in a.items():
            # Beside a gradient of 100, rounding turns 0 into a small number, as before batch norm.
            alike = [float(v.abs().max()) for other, v in a.items() if _kind(other) == _kind(name)]
            slack = (1e-9 if fine else 1e-5) * max(1.0, *alike, 0.0)
            if not torch.allclose(b[name], values, rtol=1e-7 if fine else 1e-3, atol=slack):
                return f"{name} is different"
        return None


def _kind(name: str) -> str:
    """The phase that a gradient is of, or the buffer itself."""
    return name.partition(" in phase ")[2] or name


def compare(
    pairs: Sequence[ModelWithLoss], count: int = 2, *, sharded: bool = False
) -> list[str | None]:
    """For each subject, the first difference between one process and `count` processes, or None.

    sharded: whether FSDP shards the layers. CheckFailed if the processes do not end.
    """
    alone = [_single_process(pair, count, sharded) for pair in pairs]
    with tempfile.TemporaryDirectory() as folder:
        run([work for work, _ in alone], count, Path(folder))
        first, last = (
            [load_weights(_file(Path(folder), i, rank)) for i in range(len(pairs))]
            for rank in (0, count - 1)
        )
    return [
        work.difference(whole, a) or work.difference(a, b)
        for (work, whole), a, b in zip(alone, first, last, strict=True)
    ]


def _single_process(
    pair: ModelWithLoss, count: int, sharded: bool
) -> tuple[GradientJob, dict[str, Tensor]]:
    """The result of one process, in double precision, where rounding changes the side of a ReLU
    less often; in single precision if the model allows no other."""
    try:
        work = GradientJob(pair, torch.float64, sharded)
        return work, work.gradients(count)
    except (RuntimeError, TypeError):
        work = GradientJob(pair, torch.float32, sharded)
        return work, work.gradients(count)


def run(works: Sequence[GradientJob], count: int, folder: Path) -> None:
    """Start `count` processes, which write their results into a folder."""
    job = {"works": [_describe(work) for work in works], "count": count, "folder": str(folder)}
    command = [sys.executable, "-m", "vaezoo.testing.multi_process", json.dumps(job)]
    seconds = _SECONDS * len(works)
    running = [
        subprocess.Popen(
            [*command, str(rank)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **subprocess_environment(), "OMP_NUM_THREADS": "1"},
        )
        for rank in range(count)
    ]
    try:
        said = [process.communicate(timeout=seconds)[1] for process in running]
    except subprocess.TimeoutExpired:
        raise CheckFailed(
            f"{count} processes have not ended after {seconds} s: one waits"
        ) from None
    finally:
        for process in running:
            process.kill()
    for process, words in zip(running, said, strict=True):
        if process.returncode:
            last = words.strip().splitlines() or [f"exit code {process.returncode}"]
            raise CheckFailed(f"a process failed: {last[-1]}")


def _describe(work: GradientJob) -> dict[str, object]:
    """The job as JSON, for another process."""
    pair = work.pair
    return {
        "model": pair.model_spec.name,
        "loss": pair.loss_spec.name,
        "options": {**to_dict(pair.model_options), **to_dict(pair.loss_options)},
        "double": work.dtype == torch.float64,
        "sharded": work.sharded,
    }


def _file(folder: Path, number: int, rank: int) -> Path:
    return folder / f"{number}-{rank}.safetensors"


def main() -> None:
    job, rank = json.loads(sys.argv[1]), int(sys.argv[2])
    folder, count = Path(job["folder"]), job["count"]
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=count
    )
    for number, job_spec in enumerate(job["works"]):
        pair = ModelWithLoss(job_spec["model"], job_spec["loss"], options=job_spec["options"])
        dtype = torch.float64 if job_spec["double"] else torch.float32
        work = GradientJob(pair, dtype, job_spec["sharded"])
        try:
            save_weights(_file(folder, number, rank), work.gradients(count))
        except Exception as error:
            sys.exit(f"{pair.name}: {type(error).__name__}: {error}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()


@check(
    "leave gradients to the trainer; statistics of the whole batch need "
    "vaezoo.distributed (all_gather, local_chunk, all_reduce) in each step",
    slow=True,
)
def processes(pair: ModelWithLoss) -> None:
    """Two processes with half a batch each compute the gradients of one with the whole batch"""
    for spec in (pair.model_spec, pair.loss_spec):
        if spec not in registry().specs(spec.kind):
            raise CheckSkipped("another process can load only what has a registered name")
    why_not = pair.model_class.single_process_reason or pair.loss_class.single_process_reason
    if why_not:
        raise CheckSkipped(f"it supports one process only: {why_not}")
    (different,) = compare([pair])
    fail_if(different, f"{different} with two processes")
