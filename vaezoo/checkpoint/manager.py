"""When checkpoints are saved, and loading the newest valid one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from vaezoo.checkpoint.async_writer import AsyncWriter, StagingBuffers, Tensors
from vaezoo.checkpoint.folder import RunFolder
from vaezoo.checkpoint.format import load_checkpoint, save_checkpoint, save_weights
from vaezoo.checkpoint.state import CheckpointState, Progress, parse_state
from vaezoo.distributed.launch import on_rank0_broadcast
from vaezoo.errors import RunError

_BEST_FRACTION = 0.1
"""The best weights so far are saved after this fraction of the time between checkpoints."""


class Checkpointable(Protocol):
    """Training, as far as the checkpoints need it.

    score: the validation score of the current weights; None if they were not validated.
    """

    device: torch.device
    progress: Progress
    score: float | None

    def tensors(self) -> Tensors:
        """All tensors of the training state, by file."""

    def metadata(self) -> CheckpointState:
        """The rest of the training state."""

    def restore(
        self, tensors: Mapping[str, Mapping[str, Tensor]], state: CheckpointState, path: Path
    ) -> None:
        """Load both. RunError, KeyError, TypeError, ValueError or RuntimeError if they do not
        fit."""


class CheckpointManager:
    """Saves the training state into a run folder and restores it.

    every_steps, every_seconds: a checkpoint is due after so many; None: never. keep: how many of
    the newest checkpoints stay. last_saved: the time of the last one, on time.perf_counter's clock.
    """

    def __init__(
        self,
        training: Checkpointable,
        folder: RunFolder,
        writer: AsyncWriter,
        *,
        every_steps: int | None,
        every_seconds: float | None,
        keep: int,
    ) -> None:
        self.training = training
        self.folder = folder
        self.writer = writer
        self.every_steps = every_steps
        self.every_seconds = every_seconds
        self.keep = keep
        self.last_saved = time.perf_counter()
        self._buffers = StagingBuffers()
        self._saved_step: int | None = None
        self._saved_score = -math.inf

    @property
    def is_saved(self) -> bool:
        """Whether the current step has a checkpoint."""
        return self._saved_step == self.training.progress.step

    @property
    def due_by_steps(self) -> bool:
        return self.every_steps is not None and self.training.progress.step % self.every_steps == 0

    @property
    def due_by_time(self) -> bool:
        """Whether the time is over; it is shorter if these weights are the best so far."""
        if self.every_seconds is None or self.writer.busy:
            return False
        score = self.training.score
        is_best = score is not None and score > self._saved_score
        waited = time.perf_counter() - self.last_saved
        return waited > self.every_seconds * (_BEST_FRACTION if is_best else 1.0)

    def save(self) -> None:
        """Write a checkpoint and model.safetensors in the background.

        All ranks must call this. It waits only for the copy to the host.
        """
        self.writer.wait()  # until then it reads the buffers
        tensors, state = self.training.tensors(), self.training.metadata()
        state.metrics_bytes = self.folder.metrics_bytes()
        step = self.training.progress.step
        if self.folder.is_writer:
            copies = self._buffers.copy(tensors, self.training.device)
            self.writer.run(lambda: self._write(step, copies, state))
        self._saved_step, self.last_saved = step, time.perf_counter()
        if self.training.score is not None:
            self._saved_score = max(self._saved_score, self.training.score)

    def _write(self, step: int, tensors: Tensors, state: CheckpointState) -> None:
        self.folder.sync_metrics()
        save_checkpoint(self.folder.checkpoints, step, tensors, state.model_dump(), keep=self.keep)
        save_weights(self.folder.weights, tensors["model"])

    def resume(self, note: Callable[[str], None]) -> None:
        """Restore the newest valid checkpoint of the run folder, or start from the beginning.

        note: is called with one line for each damaged checkpoint, and if there is none.
        """
        size = self.folder.metrics_bytes()
        found = on_rank0_broadcast(
            lambda: load_checkpoint(
                self.folder.checkpoints, lambda checkpoint: parse_state(checkpoint, size), note
            )
        )
        if found is None:
            note("there is no checkpoint yet: training starts from the beginning")
            self.folder.truncate_metrics(0)
            return
        state = CheckpointState.model_validate(found.state)
        try:
            self.training.restore(found.tensors, state, found.path)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RunError(f"{found.path} does not fit the training: {error}") from None
        self.folder.truncate_metrics(state.metrics_bytes)
        self._saved_step = state.progress.step
