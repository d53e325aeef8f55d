"""A training job of seconds, and a callback that stops a job at a step."""

from __future__ import annotations

import os
import signal
from typing import Any

from vaezoo.training.loggers import ProgressCallback

SMALL_JOB: dict[str, Any] = {
    "data": "sprites",
    "examples": 120,
    "test": 24,
    "image_size": 16,
    "hidden": (8, 8),
    "latent_dim": 4,
    "batch_size": 16,
    "epochs": 1,
    "device": "cpu",
}  # 96 training examples: 6 steps an epoch


class StopAfter(ProgressCallback):
    """Sends this process a stop signal after some steps, as Ctrl-C does."""

    def __init__(self, steps: int, number: signal.Signals = signal.SIGINT) -> None:
        self.left, self.number = steps, number

    def on_step_end(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)
