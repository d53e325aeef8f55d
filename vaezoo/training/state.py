"""The state of training: what a checkpoint saves and restores, and the metric buffer."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vaezoo.checkpoint.format import (
    Checkpoint,
    check_fit,
    load_into,
    load_optimizers,
    optimizer_tensors,
    random_state,
    set_random_state,
)
from vaezoo.distributed import all_reduce, world_size
from vaezoo.distributed.fsdp import distribute_like, full_state_dict
from vaezoo.losses.base import BaseLoss
from vaezoo.models.base import BaseVAE
from vaezoo.training.train_step import TrainStep


@dataclass
class Progress:
    """How far training is; with the tensors of a checkpoint, all that going on needs."""

    step: int = 0
    images: int = 0
    train_seconds: float = 0.0
    wall_seconds: float = 0.0
    skipped: int = 0


@dataclass
class Best:
    """The best weights by held-out data so far, and for how many epochs they have been that."""

    score: float = -math.inf
    epochs_since: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)


class TrainingState:
    """A model with its loss and their optimizers, how far they are, and how good they are.

    step_on_device: the position's, 0-dim int64. score: by held-out data, of the weights as they are
    now; None where that was not measured. validation_due: an epoch is over, and its validation not.
    counted: until when the position has the wall time, on the clock of time.perf_counter.
    """

    def __init__(
        self, model: BaseVAE, loss: BaseLoss, updates: TrainStep, *, log_every: int
    ) -> None:
        self.model = model
        self.loss = loss
        self.train_step = updates
        self.device = updates.device
        self.log_every = log_every
        self.progress = Progress()
        self.step_on_device = torch.zeros((), dtype=torch.int64, device=self.device)
        self.best = Best()
        self.score: float | None = None
        self.validation_due = False
        self.counted = time.perf_counter()
        self._window: MetricBuffer | None = None

    @property
    def window(self) -> MetricBuffer:
        """The steps since the last log line. The first step must have told what their terms are."""
        if self._window is None:
            self._window = MetricBuffer(self.log_every, len(self.train_step.names), self.device)
        return self._window

    @property
    def begun(self) -> bool:
        """Whether a step was taken, so that there is a window."""
        return self._window is not None

    def advance(self, values: Tensor) -> None:
        """One step more. values: of its terms, [terms], on the device."""
        self.progress.step += 1
        self.step_on_device += 1
        self.window.add(values)
        self.score = None

    def count_time(self) -> None:
        """Bring the position's wall time up to now."""
        now = time.perf_counter()
        self.progress.wall_seconds += now - self.counted
        self.counted = now

    def tensors(self) -> dict[str, Mapping[str, Tensor]]:
        """All tensors that going on needs, by the file that they are kept in."""
        tensors: dict[str, Mapping[str, Tensor]] = {
            "model": full_state_dict(self.model.state_dict()),
            "loss": full_state_dict(self.loss.state_dict()),
            "optimizers": full_state_dict(optimizer_tensors(self.train_step.optimizers)),
            "random": random_state(self.device),
        }
        if self.begun:
            tensors["window"] = {"values": self.window.saved()}
        if self.train_step.guard is not None:
            tensors["guard"] = self.train_step.guard.saved()
        if self.best.weights:
            tensors["best"] = full_state_dict(self.best.weights)
        return tensors

    def rest(self) -> dict[str, Any]:
        """What else going on needs, for JSON."""
        best = {"score": self.best.score, "epochs_since": self.best.epochs_since}
        return {
            "progress": dict(vars(self.progress)),
            "best": best if self.best.weights else None,
            "score": self.score,
            "validation_due": self.validation_due,
            "names": list(self.train_step.names),
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Put back what a checkpoint kept.

        RunError, KeyError, TypeError, ValueError or RuntimeError if it does not fit.
        """
        path, tensors, rest = checkpoint
        load_into(self.model, tensors["model"], path)
        load_into(self.loss, tensors.get("loss", {}), path)
        load_optimizers(self.train_step.optimizers, tensors.get("optimizers", {}), path)
        set_random_state(tensors["random"], self.device)
        self.progress = Progress(**rest["progress"])
        self.step_on_device.fill_(self.progress.step)
        self.train_step.names = tuple(rest["names"])
        if self.train_step.names:
            self.window.restore(tensors["window"]["values"])
        if self.train_step.guard is not None and "guard" in tensors:
            self.train_step.guard.restore(tensors["guard"])
        if rest["best"]:
            own = self.model.state_dict()
            check_fit(own, tensors["best"], path)
            best = {
                name: distribute_like(tensor.to(self.device), own[name])
                for name, tensor in tensors["best"].items()
            }
            self.best = Best(**rest["best"], weights=best)
        self.validation_due = rest["validation_due"]


class MetricBuffer:
    """Values of each step, [steps, terms], without a synchronisation until they are read."""

    def __init__(self, steps: int, terms: int, device: torch.device) -> None:
        self.values = torch.zeros((steps, terms), device=device)
        self.count = 0

    def add(self, values: Tensor) -> None:
        """The values of one step: [terms]."""
        self.values[self.count] = values
        self.count += 1

    @property
    def full(self) -> bool:
        return self.count == len(self.values)

    def read(self) -> list[list[float]]:
        """The values so far, a list a step, and start anew. Waits for the device."""
        rows = self.peek()
        self.count = 0
        return rows

    def peek(self) -> list[list[float]]:
        """The values so far, a list a step. Waits for the device."""
        rows: list[list[float]] = self.saved().tolist()
        return rows

    def saved(self) -> Tensor:
        """What a checkpoint keeps of a window: means over the processes that share its steps."""
        return all_reduce(self.values[: self.count]) / world_size()

    def restore(self, saved: Tensor) -> None:
        self.values[: len(saved)] = saved.to(self.values.device)
        self.count = len(saved)


def means(rows: Sequence[Sequence[float]]) -> list[float]:
    """The mean of each term over the steps of a window."""
    return [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]


def finite(rows: Sequence[Sequence[float]]) -> list[Sequence[float]]:
    """The steps whose values are all numbers."""
    return [values for values in rows if all(map(math.isfinite, values))]


def first_broken(
    rows: Sequence[Sequence[float]], names: Sequence[str]
) -> tuple[int, str, float] | None:
    """The first value that is no finite number: (row, name, value).

    In the step where it happened a term is to blame before the objective that sums them.
    """
    for row, values in enumerate(rows):
        broken = [
            (name, value)
            for name, value in zip(names, values, strict=True)
            if not math.isfinite(value)
        ]
        if broken:
            name, value = min(broken, key=lambda pair: pair[0].endswith("loss"))
            return row, name, value
    return None
