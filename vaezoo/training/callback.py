"""The interface of progress callbacks, which a run calls while it trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TrainMetrics:
    """A log line. terms: means since the last line, in nats per image; None if not finite."""

    step: int
    total_steps: int
    epoch: int
    images_per_second: float
    terms: Mapping[str, float | None]


class ProgressCallback:
    """Base of progress callbacks. Each method does nothing until a subclass overrides it."""

    def on_train_start(self, title: str, total_steps: int, done: int) -> None:
        """Training starts, or resumes after `done` steps."""

    def on_step_end(self) -> None:
        """A step was given to the device."""

    def on_log(self, metrics: TrainMetrics) -> None:
        """A log line was written."""

    def on_validation_end(self, epoch: int, record: Mapping[str, Any]) -> None:
        """A validation is done. record: its line of metrics.jsonl."""

    def on_note(self, text: str) -> None:
        """A message for the user, in one line."""

    def on_train_end(self) -> None:
        """Training is over, with or without an error. Called once."""
