"""Detect non-finite values where training waits for the device, and keep the last good weights."""

from __future__ import annotations

import torch
from torch import Tensor

from vaezoo.checkpoint.async_writer import AsyncWriter
from vaezoo.checkpoint.folder import RunFolder
from vaezoo.checkpoint.format import list_checkpoints, save_weights
from vaezoo.distributed.fsdp import full_state_dict, total_norm
from vaezoo.errors import TrainingError, how_to_resume
from vaezoo.training.state import TrainingState, first_broken


class NonFiniteMonitor:
    """Looks for what is not finite when training waits for the device anyway.

    When it finds something it leaves the last good weights in the run folder.
    """

    def __init__(self, state: TrainingState, folder: RunFolder, background: AsyncWriter) -> None:
        self.state = state
        self.folder = folder
        self.background = background
        self._good: dict[str, Tensor] = {}
        self._good_step = 0

    def snapshot(self) -> None:
        """Keep these weights as the last good ones, if they are."""
        self._check_weights()
        weights = self.state.model.state_dict()
        if self._good:
            for name, tensor in weights.items():
                self._good[name].copy_(tensor)
        else:
            self._good = {name: tensor.detach().clone() for name, tensor in weights.items()}
        self._good_step = self.state.progress.step

    def check(self) -> None:
        """TrainingError if the weights broke, or a step since the last log line did.

        Where a guard leaves such steps out, the log line counts them. Waits for the device.
        """
        if self.state.begun and self.state.train_step.guard is None:
            self.check_steps(self.state.window.peek())
        self._check_weights()

    def check_steps(self, rows: list[list[float]]) -> int:
        """TrainingError if one of the last steps broke; else how many of them were left out.

        rows: the values of each, as the window has them.
        """
        progress, guard = self.state.progress, self.state.train_step.guard
        first = progress.step - len(rows) + 1
        broken = first_broken(rows, self.state.train_step.names)
        if broken and guard is None:
            row, name, value = broken
            raise self._broke(f"{name} became {value} at step {first + row}")
        if guard is None:
            return 0
        before = progress.skipped
        progress.skipped, too_many = guard.read()
        if too_many:
            named = "a gradient was not finite"
            if broken:
                named = f"{broken[1]} was {broken[2]} at step {first + broken[0]}"
            raise self._broke(f"{progress.skipped} steps had to be skipped, {named}")
        return progress.skipped - before

    def _check_weights(self) -> None:
        """TrainingError if a weight is not finite. Waits for the device."""
        norm = total_norm(self.state.model.parameters())
        if not torch.isfinite(norm):
            raise self._broke(
                f"the weights stopped being finite after step {self._good_step}"
                if self._good
                else "the weights are not finite to begin with"
            )

    def _broke(self, what: str) -> TrainingError:
        self.background.wait()
        good = full_state_dict(self._good)
        if self.folder.is_writer:
            save_weights(self.folder.weights, good)
        found = list_checkpoints(self.folder.checkpoints)
        saved = f", and the last good checkpoint is {found[-1]}" if found else ""
        ways = ["a smaller --lr", "--grad-clip 1"]
        if self.state.train_step.guard is None:
            ways.append("--on-nonfinite skip")
        return TrainingError(
            f"training broke: {what}; the weights of step {self._good_step} are kept in "
            f"{self.folder.weights}{saved}; {how_to_resume(self.folder.path)} with "
            f"{' or '.join(ways)}"
        )
