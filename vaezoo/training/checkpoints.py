"""When checkpoints are saved, and loading the newest valid one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from vaezoo.checkpoint.async_writer import AsyncWriter, StagingBuffers, Tensors
from vaezoo.checkpoint.folder import RunFolder
from vaezoo.checkpoint.format import load_checkpoint, save_checkpoint, save_weights
from vaezoo.checkpoint.state import CheckpointState, parse_state
from vaezoo.distributed.launch import on_rank0_broadcast
from vaezoo.errors import RunError
from vaezoo.training.options import TrainOptions
from vaezoo.training.state import TrainingState

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
            self.state.restore(found.tensors, state, found.path)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RunError(f"{found.path} does not fit the training: {error}") from None
        self.folder.truncate_metrics(state.metrics_bytes)
        self._saved_step = state.progress.step
