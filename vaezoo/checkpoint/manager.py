"""When training is saved, how it is while it goes on, and going back to what was saved."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from vaezoo.checkpoint.async_writer import AsyncWriter, StagingBuffers, Tensors
from vaezoo.checkpoint.folder import RunFolder
from vaezoo.checkpoint.format import (
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
    save_weights,
)
from vaezoo.checkpoint.validate import check_resumable
from vaezoo.distributed.launch import on_rank0_broadcast
from vaezoo.errors import RunError
from vaezoo.training.monitor import NonFiniteMonitor
from vaezoo.training.options import TrainOptions
from vaezoo.training.state import TrainingState

_SOONER = 0.1
"""The best weights so far are saved after this part of the time between checkpoints."""


class CheckpointManager:
    """Keeps the checkpoints of a run.

    last_saved: when that was, or when training began, on the clock of time.perf_counter.
    """

    def __init__(
        self,
        state: TrainingState,
        folder: RunFolder,
        options: TrainOptions,
        *,
        background: AsyncWriter,
        health: NonFiniteMonitor,
    ) -> None:
        self.state = state
        self.folder = folder
        self.options = options
        self.background = background
        self.health = health
        self.last_saved = time.perf_counter()
        self._host_copy = StagingBuffers()
        self._saved_step: int | None = None
        self._saved_score = -math.inf

    @property
    def planned(self) -> bool:
        """Whether a checkpoint is due by the number of steps."""
        every = self.options.checkpoint_every
        return every is not None and self.state.progress.step % every == 0

    @property
    def due(self) -> bool:
        """Whether one is by the clock: sooner where these weights are the best so far."""
        seconds = self.options.checkpoint_seconds
        if seconds is None or self.background.busy:
            return False
        score = self.state.score
        is_best = score is not None and score > self._saved_score
        waited = time.perf_counter() - self.last_saved
        return waited > seconds * (_SOONER if is_best else 1.0)

    def save(self) -> float:
        """A checkpoint, and the weights where everyone looks for them; the seconds that it took.

        Training waits for the copy to the host; a thread writes it. What is not finite is never
        saved: TrainingError tells of it, as the log line would have. Nothing happens, in no time,
        where this step is saved already.
        """
        if self._saved_step == self.state.progress.step:
            return 0.0
        begun = time.perf_counter()
        self.background.wait()  # the buffers of the copy are in use until then
        self.health.check()
        self.state.count_time()
        tensors, rest = self.state.tensors(), self.state.rest()  # all processes have a part of them
        rest["metrics_bytes"] = self.folder.metrics_bytes()
        if self.folder.is_writer:
            copies = self._host_copy.take(tensors, self.state.device)
            step = self.state.progress.step  # it moves on while the thread writes
            self.background.run(lambda: self._write(step, copies, rest))
        self._saved_step, self.last_saved = self.state.progress.step, time.perf_counter()
        if self.state.score is not None:
            self._saved_score = max(self._saved_score, self.state.score)
        return self.last_saved - begun

    def resume(self, note: Callable[[str], None]) -> None:
        """Go back to the newest sound checkpoint of the run folder, or to the beginning.

        note: is told, in a line each, of damaged checkpoints, and where there is none.
        """
        found = on_rank0_broadcast(lambda: self._newest(note))
        if found is None:
            note("there is no checkpoint yet: begins again")
            self.folder.truncate_metrics(0)
            return
        try:
            self.state.restore(found)
            self.folder.truncate_metrics(found.state["metrics_bytes"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RunError(f"{found.path} does not fit the training: {error}") from None
        self._saved_step = self.state.progress.step

    def _write(self, step: int, tensors: Tensors, rest: Mapping[str, Any]) -> None:
        """In the thread."""
        self.folder.sync_metrics()
        keep = self.options.keep_checkpoints
        save_checkpoint(self.folder.checkpoints, step, tensors, rest, keep=keep)
        save_weights(self.folder.weights, tensors["model"])

    def _newest(self, note: Callable[[str], None]) -> Checkpoint | None:
        size = self.folder.metrics_bytes()
        return load_checkpoint(
            self.folder.checkpoints, lambda checkpoint: check_resumable(checkpoint, size), note
        )
