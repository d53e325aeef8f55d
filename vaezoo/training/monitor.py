"""Stop training when values or weights are not finite, and keep the last good weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vaezoo.checkpoint.folder import RunFolder
from vaezoo.checkpoint.format import list_checkpoints, save_weights
from vaezoo.distributed.fsdp import full_state_dict, total_norm
from vaezoo.errors import TrainingError, how_to_resume
from vaezoo.training.checkpoints import AsyncWriter
from vaezoo.training.state import TrainingState


@dataclass(eq=False)
class NonFiniteMonitor:
    """Raises TrainingError if values or weights are not finite.

    The trainer calls it where it waits for the device anyway. The error writes the last good
    weights into the run folder.
    """

    state: TrainingState
    folder: RunFolder
    writer: AsyncWriter
    _good: dict[str, Tensor] = field(default_factory=dict)
    _good_step: int = 0

    def snapshot(self) -> None:
        """Copy the weights as the last good ones. TrainingError if they are not finite."""
        self._check_weights()
        weights = self.state.model.state_dict()
        if self._good:
            for name, tensor in weights.items():
                self._good[name].copy_(tensor)
        else:
            self._good = {name: tensor.detach().clone() for name, tensor in weights.items()}
        self._good_step = self.state.progress.step

    def check(self) -> None:
        """TrainingError if the weights, or values since the last log line, are not finite.

        With a guard, steps with such values are skipped, and the next log line counts them.
        """
        if self.state.train_step.names and self.state.train_step.guard is None:
            self.check_steps(self.state.metric_buffer.peek())
        self._check_weights()

    def check_steps(self, rows: Sequence[Sequence[float]]) -> int:
        """TrainingError if one of the last steps was not finite; else how many were skipped.

        rows: the values of each step, as the metric buffer has them.
        """
        progress, guard = self.state.progress, self.state.train_step.guard
        first = progress.step - len(rows) + 1
        found = find_nonfinite(rows, self.state.train_step.names)
        if guard is None:
            if found:
                row, name, value = found
                raise self._error(f"{name} became {value} at step {first + row}")
            return 0
        before = progress.skipped
        progress.skipped, too_many = guard.read()
        if too_many:
            reason = "a gradient was not finite"
            if found:
                reason = f"{found[1]} was {found[2]} at step {first + found[0]}"
            raise self._error(f"{progress.skipped} steps had to be skipped, {reason}")
        return progress.skipped - before

    def _check_weights(self) -> None:
        if not torch.isfinite(total_norm(self.state.model.parameters())):
            after = f"the weights are not finite after step {self._good_step}"
            raise self._error(after if self._good else "the initial weights are not finite")

    def _error(self, what: str) -> TrainingError:
        self.writer.wait()
        weights = full_state_dict(self._good)
        if self.folder.is_writer:
            save_weights(self.folder.weights, weights)
        found = list_checkpoints(self.folder.checkpoints)
        saved = f", and the last good checkpoint is {found[-1]}" if found else ""
        skip = " or --on-nonfinite skip" if self.state.train_step.guard is None else ""
        ways = f"a smaller --lr or --grad-clip 1{skip}"
        return TrainingError(
            f"training failed: {what}; the weights of step {self._good_step} are kept in "
            f"{self.folder.weights}{saved}; {how_to_resume(self.folder.path)} with {ways}"
        )


def find_nonfinite(
    rows: Sequence[Sequence[float]], names: Sequence[str]
) -> tuple[int, str, float] | None:
    """The first value that is not finite: (row, name, value). A term comes before the loss."""
    for row, values in enumerate(rows):
        named = zip(names, values, strict=True)
        found = {name: value for name, value in named if not math.isfinite(value)}
        if found:
            name = min(found, key=lambda name: name.endswith("loss"))
            return row, name, found[name]
    return None
