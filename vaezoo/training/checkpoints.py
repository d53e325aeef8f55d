"""When checkpoints are saved, writing them in the background, and loading the newest valid one."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from vaezoo.checkpoint.folder import RunFolder
from vaezoo.checkpoint.format import (
    CheckpointState,
    list_checkpoints,
    load_checkpoint,
    load_into,
    parse_state,
    read_checkpoint,
    remove_checkpoint,
    save_checkpoint,
    save_weights,
)
from vaezoo.distributed.launch import on_rank0_broadcast
from vaezoo.errors import RunError
from vaezoo.training.options import TrainOptions
from vaezoo.training.state import TrainingState

Tensors = Mapping[str, Mapping[str, Tensor]]


def evaluated(tensors: Tensors) -> dict[str, Tensor]:
    """The weights of a checkpoint that evaluation uses: with --ema, the averages."""
    return {**tensors["model"], **tensors.get("ema", {})}


class StagingBuffers:
    """Host buffers for copies of tensors, kept for the next copy; pinned for tensors on a GPU."""

    def __init__(self) -> None:
        self._buffers: dict[str, dict[str, Tensor]] = {}

    def copy(self, tensors: Tensors, device: torch.device) -> dict[str, dict[str, Tensor]]:
        """Copy the values of tensors, by file and name. The next call overwrites the copies."""
        before, self._buffers = self._buffers, {file: {} for file in tensors}
        for file, part in tensors.items():
            for name, tensor in part.items():
                tensor = tensor.detach()
                buffer = before.get(file, {}).get(name)
                if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
                    # The memory format of the tensor: the writer makes it contiguous.
                    buffer = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
                self._buffers[file][name] = buffer.copy_(tensor, non_blocking=True)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return self._buffers


class AsyncWriter:
    """Runs one job at a time in a thread. An error of the job is raised by the next call here."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def run(self, job: Callable[[], None]) -> None:
        """Start a job when the one before it is done."""
        self.wait()
        # A daemon, so that a process that stops at once does not wait for the disk.
        self._thread = threading.Thread(target=self._run, args=(job,), daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise the error of a finished job. Does not wait."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Wait for the job to finish, and raise its error."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:  # any error: `wait` raises it
            self._error = error


_BEST_FRACTION = 0.1
"""The best weights so far are saved after this fraction of the time between checkpoints."""


@dataclass(eq=False)
class CheckpointManager:
    """Saves the training state into a run folder and restores it.

    last_saved: the time of the last checkpoint, on time.perf_counter's clock.
    """

    state: TrainingState
    folder: RunFolder
    writer: AsyncWriter
    options: TrainOptions
    last_saved: float = field(default_factory=time.perf_counter)
    _buffers: StagingBuffers = field(default_factory=StagingBuffers)
    _saved_step: int | None = None
    _saved_score: float = -math.inf

    @property
    def is_saved(self) -> bool:
        """Whether the current step has a checkpoint."""
        return self._saved_step == self.state.progress.step

    @property
    def due_by_steps(self) -> bool:
        every = self.options.checkpoint_every
        return every is not None and self.state.progress.step % every == 0

    @property
    def due_by_time(self) -> bool:
        """Whether `checkpoint_seconds` have passed; a tenth of it for the best weights so far."""
        every = self.options.checkpoint_seconds
        if every is None or self.writer.busy:
            return False
        if self.state.score is not None and self.state.score > self._saved_score:
            every *= _BEST_FRACTION
        return time.perf_counter() - self.last_saved > every

    def save(self) -> None:
        """Write a checkpoint and model.safetensors in the background.

        All ranks must call this. It waits only for the copy to the host.
        """
        self.writer.wait()  # until then it reads the buffers
        tensors, record = self.state.tensors(), self.state.metadata()
        record.metrics_bytes = self.folder.metrics_bytes()
        step = self.state.progress.step
        if self.folder.is_writer:
            copies = self._buffers.copy(tensors, self.state.device)
            self.writer.run(lambda: self._write(step, copies, record))
        self._saved_step, self.last_saved = step, time.perf_counter()
        if self.state.score is not None:
            self._saved_score = max(self._saved_score, self.state.score)

    def _write(self, step: int, tensors: Tensors, state: CheckpointState) -> None:
        self.folder.sync_metrics()
        keep = self.options.keep_checkpoints
        save_checkpoint(self.folder.checkpoints, step, tensors, state.model_dump(), keep=keep)
        save_weights(self.folder.weights, evaluated(tensors))
        self.folder.init.unlink(missing_ok=True)  # from now on training resumes from checkpoints

    def paths(self) -> list[Path]:
        """The checkpoints of the run, the newest first. All ranks must call this."""
        return on_rank0_broadcast(lambda: list_checkpoints(self.folder.checkpoints))[::-1]

    def keep_newest(self, is_good: Callable[[], bool]) -> int:
        """Load the weights of the newest good checkpoint, remove later ones, return its step.

        is_good: judges the weights that are loaded. 0 if there is none; then all checkpoints stay.
        """
        later: list[Path] = []
        for path in self.paths():
            found = on_rank0_broadcast(partial(read_checkpoint, path))
            load_into(self.state.model, evaluated(found.tensors), path)
            load_into(self.state.loss, found.tensors.get("loss", {}), path)
            if is_good():
                for bad in later if self.folder.is_writer else ():
                    remove_checkpoint(bad)
                return found.step
            later.append(path)
        return 0

    def resume(self, note: Callable[[str], None]) -> None:
        """Restore the newest valid checkpoint of the run folder, or start from the beginning.

        note: is called with one line for each damaged checkpoint, and if there is none.
        """
        size = self.folder.metrics_bytes()
        folder = self.folder.checkpoints
        found = on_rank0_broadcast(
            lambda: load_checkpoint(folder, lambda found: parse_state(found, size), note)
        )
        if found is None:
            note("there is no checkpoint yet: training starts from the beginning")
            self.folder.truncate_metrics(0)
            return
        state = CheckpointState.model_validate(found.state)
        try:
            self.state.restore(found.tensors, state, found.path)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RunError(f"{found.path} does not fit the training: {error}") from None
        self.folder.truncate_metrics(state.metrics_bytes)
        self._saved_step = state.progress.step
