"""Detect losses, gradients and weights that are not finite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vaezoo.distributed.fsdp import all_finite
from vaezoo.errors import TrainingError
from vaezoo.training.state import TrainingState


class NonFiniteError(TrainingError):
    """A loss or a gradient was not finite. The message says what and when."""


@dataclass(eq=False)
class NonFiniteMonitor:
    """Raises NonFiniteError if a step was not finite: its loss or a value of a gradient.

    A gradient that is not finite shows in the weights, which Adam has updated with it. With a
    guard such steps were skipped, and it raises if there were too many. The trainer calls it where
    it waits for the device anyway.
    """

    state: TrainingState

    def check(self) -> None:
        """NonFiniteError if the weights, or losses since the last log line, are not finite."""
        if self.state.train_step.names and self.state.train_step.guard is None:
            self.check_steps(self.state.metric_buffer.peek())
        self.check_weights()

    def check_steps(self, rows: Sequence[Sequence[float]]) -> int:
        """NonFiniteError if one of the last steps was not finite; else how many were skipped.

        rows: the values of each step, as the metric buffer has them.
        """
        progress, guard = self.state.progress, self.state.train_step.guard
        found = self._find_nonfinite(rows)
        if guard is None:
            if found:
                raise NonFiniteError(" became ".join(found))
            return 0
        before = progress.skipped
        progress.skipped, too_many = guard.read()
        if too_many:
            reason = " was ".join(found) if found else "a gradient was not finite"
            raise NonFiniteError(f"{progress.skipped} steps had to be skipped: {reason}")
        return progress.skipped - before

    def check_weights(self) -> None:
        if not all_finite(self.state.model.parameters()):
            raise NonFiniteError(
                f"the weights are not finite after step {self.state.progress.step}"
            )

    def _find_nonfinite(self, rows: Sequence[Sequence[float]]) -> tuple[str, str] | None:
        """The name and value of the first loss that is not finite, or of its term."""
        train_step = self.state.train_step
        for step, values in enumerate(rows, self.state.progress.step - len(rows) + 1):
            named = dict(zip(train_step.names, values, strict=True))
            found = [name for name, value in named.items() if not math.isfinite(value)]
            if {*found} & {*train_step.loss_names}:
                name = min(found, key=lambda name: name in train_step.loss_names)
                return name, f"{named[name]} at step {step}"
        return None
