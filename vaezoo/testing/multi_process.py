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
from vaezoo.distributed.fsdp import apply_fsdp, full_state_dict
from vaezoo.losses.base import Phase, loss_of
from vaezoo.nn.batch_norm import sync_batch_norm
from vaezoo.options import to_dict
from vaezoo.plugins.registry import registry, subprocess_environment
from vaezoo.testing.check import CheckFailed, CheckSkipped, check, fail_if
from vaezoo.testing.subjects import ModelWithLoss


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
        ours = tree_map_only(Tensor, lambda values: self._along(values, local_chunk), drawn)
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
    """A training step on one batch, whose gradients are computed by one or by several processes.

    sharded: whether each process holds a part of every layer.
    """

    pair: ModelWithLoss
    dtype: torch.dtype
    sharded: bool = False

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
        pair, local = self.pair, max(_LOCAL_BATCH, self.pair.model_class.min_batch_size)
        x, y = pair.batch(count * local)
        batch = Batch(local_chunk(x).to(self.dtype), None if y is None else local_chunk(y))
        model = pair.build().to(self.dtype)
        loss = loss_of(model).to(self.dtype)
        options = pair.train_options.model_copy(update={"lr": _LR})
        if world_size() > 1:
            sync_batch_norm(model, loss)
            if self.sharded:
                apply_fsdp(model, loss, min_numel=1)
                options = options.model_copy(update={"shard": True})
        named = [*model.named_parameters(), *loss.named_parameters("loss")]
        update = pair.train_step(model, _STEPS, options)
        found = {}
        for phase, optimizer in zip(update.phases, update.optimizers, strict=True):

            def keep(*_: object, phase: Phase = phase) -> None:
                gradients = {n: p.grad.clone() for n, p in named if p.grad is not None}
                for name, gradient in full_state_dict(gradients).items():
                    if gradient.any():
                        found[f"the gradient of {name} in phase {phase.name}"] = gradient

            optimizer.register_step_pre_hook(keep)
        with SameNoise(local):
            update(batch, pair.context(0, _STEPS), 0)
        buffers = [*model.named_buffers(), *loss.named_buffers("loss")]
        return {**found, **{f"the buffer {name}": b.to(self.dtype) for name, b in buffers}}

    def difference(self, a: dict[str, Tensor], b: dict[str, Tensor]) -> str | None:
        """The first tensor that differs by more than rounding, or None."""
        if a.keys() != b.keys():
            return f"{min(a.keys() ^ b.keys())} is missing in some processes"
        atol, rtol = (1e-9, 1e-7) if self.dtype == torch.float64 else (1e-5, 1e-3)
        for name, values in a.items():
            # Beside a gradient of 100, rounding turns 0 into a small number, as before batch norm.
            group = [float(v.abs().max()) for n, v in a.items() if _group(n) == _group(name)]
            if not torch.allclose(b[name], values, rtol=rtol, atol=atol * max(1.0, *group)):
                return f"{name} is different"
        return None

    def to_json(self) -> dict[str, object]:
        """The job for another process."""
        pair = self.pair
        return {
            "model": pair.model_spec.name,
            "loss": pair.loss_spec.name,
            "parts": {kind: spec.name for kind, spec in pair.components.parts.items()},
            "options": {k: v for o in pair.by_section.values() for k, v in to_dict(o).items()},
            "double": self.dtype == torch.float64,
            "sharded": self.sharded,
        }


def _group(name: str) -> str:
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
        run([job for job, _ in alone], count, Path(folder))
        first, last = (
            [load_weights(_file(folder, number, rank)) for number in range(len(pairs))]
            for rank in (0, count - 1)
        )
    return [
        job.difference(whole, a) or job.difference(a, b)
        for (job, whole), a, b in zip(alone, first, last, strict=True)
    ]


def _single_process(
    pair: ModelWithLoss, count: int, sharded: bool
) -> tuple[GradientJob, dict[str, Tensor]]:
    """The result of one process, in double precision, where rounding changes the side of a ReLU
    less often; in single precision if the model allows no other."""
    job = GradientJob(pair, torch.float64, sharded)
    try:
        return job, job.gradients(count)
    except (RuntimeError, TypeError):
        job = job._replace(dtype=torch.float32)
        return job, job.gradients(count)


def run(jobs: Sequence[GradientJob], count: int, folder: Path) -> None:
    """Start `count` processes, which write their results into a folder."""
    work = {"jobs": [job.to_json() for job in jobs], "count": count, "directory": str(folder)}
    command = [sys.executable, "-m", "vaezoo.testing.multi_process", json.dumps(work)]
    environment = {**os.environ, **subprocess_environment(), "OMP_NUM_THREADS": "1"}
    seconds = _SECONDS * len(jobs)
    running = [
        subprocess.Popen(
            [*command, str(rank)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(count)
    ]
    try:
        errors = [process.communicate(timeout=seconds)[1] for process in running]
    except subprocess.TimeoutExpired:
        message = f"{count} processes have not ended after {seconds} s: one waits"
        raise CheckFailed(message) from None
    finally:
        for process in running:
            process.kill()
    for process, text in zip(running, errors, strict=True):
        lines = text.strip().splitlines() or [f"exit code {process.returncode}"]
        fail_if(process.returncode, f"a process failed: {lines[-1]}")


def _file(folder: str, number: int, rank: int) -> Path:
    return Path(folder, f"{number}-{rank}.safetensors")


def main() -> None:
    work, rank = json.loads(sys.argv[1]), int(sys.argv[2])
    folder, count = work["directory"], work["count"]
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=count
    )
    for number, job in enumerate(work["jobs"]):
        pair = ModelWithLoss(job["model"], job["loss"], parts=job["parts"], options=job["options"])
        dtype = torch.float64 if job["double"] else torch.float32
        try:
            gradients = GradientJob(pair, dtype, job["sharded"]).gradients(count)
        except Exception as error:
            sys.exit(f"{pair.name}: {type(error).__name__}: {error}")
        save_weights(_file(folder, number, rank), gradients)
    dist.destroy_process_group()


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
    reason = pair.model_class.single_process_reason or pair.classes["loss"].single_process_reason
    if reason:
        raise CheckSkipped(f"it supports one process only: {reason}")
    (different,) = compare([pair])
    fail_if(different, f"{different} with two processes")


if __name__ == "__main__":
    main()
