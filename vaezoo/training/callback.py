"""What a training run tells whoever watches it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TrainMetrics:
    """Where a run stands. terms: means of the last log window, nats per image; None: no number."""

    step: int
    total_steps: int
    epoch: int
    images_per_second: float
    terms: Mapping[str, float | None]


class ProgressCallback:
    """Silent by itself; the command line and notebooks have ones that show something."""

    def on_train_start(self, title: str, total_steps: int, done: int) -> None:
        """Training begins, or goes on after `done` steps."""

    def on_step_end(self) -> None:
        """A step has been handed to the device."""

    def on_log(self, metrics: TrainMetrics) -> None:
        """A log window is full."""

    def on_validation_end(self, epoch: int, record: Mapping[str, Any]) -> None:
        """Held-out terms: the line that metrics.jsonl gets."""

    def on_note(self, text: str) -> None:
        """Something worth a line."""

    def on_train_end(self) -> None:
        """Training is over, one way or another. Called once."""
