"""The state of training that a checkpoint saves, and the buffer of values between log lines."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from vaezoo.checkpoint.format import (
    BestScore,
    CheckpointState,
    Progress,
    check_fit,
    load_into,
    load_optimizers,
    optimizer_tensors,
    random_state,
    set_random_state,
)
from vaezoo.distributed import all_reduce, world_size
from vaezoo.distributed.fsdp import all_finite, distribute_like, full_state_dict
from vaezoo.errors import TrainingError
from vaezoo.losses.base import BaseLoss
from vaezoo.models.base import BaseVAE
from vaezoo.training.train_step import TrainStep


class NonFiniteError(TrainingError):
    """A loss or a gradient was not finite. The message says what and when."""


@dataclass
class Best:
    """The weights with the best validation score, and the number of epochs since then."""

    score: float = -math.inf
    epochs_since: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)


@dataclass(eq=False)
class TrainingState:
    """The model, its loss, their optimizers, the progress and the validation scores.

    global_step: progress.step on the device, 0-dim int64. score: the validation score of the
    current weights; None if they were not validated. validation_due: an epoch is over, but its
    validation is not. wall_clock: the time up to which progress.wall_seconds counts, on
    time.perf_counter's clock.
    """

    model: BaseVAE
    loss: BaseLoss
    train_step: TrainStep
    log_every: int
    progress: Progress = field(default_factory=Progress)
    best: Best = field(default_factory=Best)
    score: float | None = None
    validation_due: bool = False
    wall_clock: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self.device = self.train_step.runtime.device
        self.global_step = torch.zeros((), dtype=torch.int64, device=self.device)

    @cached_property
    def metric_buffer(self) -> MetricBuffer:
        """The values since the last log line. The first step must have named them."""
        return MetricBuffer(self.log_every, len(self.train_step.names), self.device)

    def advance(self, values: Tensor) -> None:
        """Count one step. values: what the step returned, [terms], on the device."""
        self.progress.step += 1
        self.global_step += 1
        self.metric_buffer.add(values)
        self.score = None

    def check(self) -> None:
        """NonFiniteError if the weights, or losses since the last log line, are not finite.

        A gradient that is not finite shows in the weights, which were updated with it.
        """
        if self.train_step.names:
            self._raise_nonfinite(self.metric_buffer.peek())
        self.check_weights()

    def check_steps(self, rows: Sequence[Sequence[float]]) -> int:
        """NonFiniteError if a step was not finite, or if too many were skipped.

        rows: the values of the last steps, as the metric buffer has them. Returns how many of them
        were skipped.
        """
        found = self._raise_nonfinite(rows)
        guard, before = self.train_step.guard, self.progress.skipped
        if guard is None:
            return 0
        self.progress.skipped, too_many = guard.read()
        if too_many:
            reason = " was ".join(found) if found else guard.reason
            raise NonFiniteError(f"{self.progress.skipped} steps had to be skipped: {reason}")
        return self.progress.skipped - before

    def _raise_nonfinite(self, rows: Sequence[Sequence[float]]) -> tuple[str, str] | None:
        """What `_find_nonfinite` finds; NonFiniteError instead, unless such steps are skipped."""
        found = self._find_nonfinite(rows)
        if found and self.train_step.options.on_nonfinite == "stop":
            raise NonFiniteError(" became ".join(found))
        return found

    def check_weights(self) -> None:
        if not all_finite(self.model.parameters()):
            raise NonFiniteError(f"the weights are not finite after step {self.progress.step}")

    def _find_nonfinite(self, rows: Sequence[Sequence[float]]) -> tuple[str, str] | None:
        """The name and value of the first loss that is not finite, or of its term."""
        losses = self.train_step.loss_names
        for step, values in enumerate(rows, self.progress.step - len(rows) + 1):
            named = dict(zip(self.train_step.names, values, strict=True))
            found = [name for name, value in named.items() if not math.isfinite(value)]
            if {*found} & {*losses}:
                name = min(found, key=lambda name: name in losses)
                return name, f"{named[name]} at step {step}"
        return None

    def count_time(self) -> None:
        """Add the wall time since the last call."""
        now = time.perf_counter()
        self.progress.wall_seconds += now - self.wall_clock
        self.wall_clock = now

    def tensors(self) -> dict[str, Mapping[str, Tensor]]:
        """All tensors of the state, by the file of the checkpoint. All ranks must call this."""
        tensors: dict[str, Mapping[str, Tensor]] = {
            "model": full_state_dict(self.model.state_dict()),
            "loss": full_state_dict(self.loss.state_dict()),
            "optimizers": full_state_dict(optimizer_tensors(self.train_step.optimizers)),
            "random": random_state(self.device),
        }
        if self.train_step.names:
            tensors["metric_buffer"] = {"values": self.metric_buffer.mean_over_ranks()}
        if self.train_step.guard is not None:
            tensors["guard"] = self.train_step.guard.state_dict()
        if self.train_step.ema is not None:
            tensors["ema"] = full_state_dict(self.train_step.ema.averages)
        if self.best.weights:
            tensors["best"] = full_state_dict(self.best.weights)
        return tensors

    def metadata(self) -> CheckpointState:
        """The rest of the state, for JSON."""
        best = None
        if self.best.weights:
            best = BestScore(score=self.best.score, epochs_since=self.best.epochs_since)
        return CheckpointState(
            progress=Progress(**vars(self.progress)),
            best=best,
            score=self.score,
            validation_due=self.validation_due,
            metric_names=list(self.train_step.names),
        )

    def restore(
        self, tensors: Mapping[str, Mapping[str, Tensor]], state: CheckpointState, path: Path
    ) -> None:
        """Load a checkpoint.

        RunError, KeyError, TypeError, ValueError or RuntimeError if it does not fit.
        """
        load_into(self.model, tensors["model"], path)
        load_into(self.loss, tensors.get("loss", {}), path)
        load_optimizers(self.train_step.optimizers, tensors.get("optimizers", {}), path)
        set_random_state(tensors["random"], self.device)
        self.progress = state.progress
        self.global_step.fill_(self.progress.step)
        self.train_step.names = tuple(state.metric_names)
        if self.train_step.names:
            self.metric_buffer.restore(tensors["metric_buffer"]["values"])
        if self.train_step.guard is not None:
            self.train_step.guard.skipped.fill_(self.progress.skipped)
            self.train_step.guard.load_state_dict(tensors.get("guard", {}), strict=False)
        if self.train_step.ema is not None:
            load_tensors(self.train_step.ema.averages, tensors["ema"], path)
        if state.best:
            weights = {n: t.detach().clone() for n, t in self.model.state_dict().items()}
            load_tensors(weights, tensors["best"], path)
            self.best = Best(state.best.score, state.best.epochs_since, weights)
        self.validation_due = state.validation_due


def load_tensors(own: Mapping[str, Tensor], saved: Mapping[str, Tensor], path: Path) -> None:
    """Copy saved values into tensors of the same names. RunError if they do not fit."""
    check_fit(own, saved, path)
    for name, tensor in own.items():
        tensor.copy_(distribute_like(saved[name].to(tensor.device), tensor))


class MetricBuffer:
    """The values of each step since the last log line, [steps, terms], on the device.

    Adding values does not wait for the device; reading them does.
    """

    def __init__(self, steps: int, terms: int, device: torch.device) -> None:
        self.values = torch.zeros((steps, terms), device=device)
        self.count = 0

    def add(self, values: Tensor) -> None:
        """Add the values of one step, [terms]."""
        self.values[self.count] = values
        self.count += 1

    @property
    def full(self) -> bool:
        return self.count == len(self.values)

    def pop(self) -> list[list[float]]:
        """Return the values so far, one list a step, and empty the buffer."""
        rows = self.peek()
        self.count = 0
        return rows

    def peek(self) -> list[list[float]]:
        """Return the values so far, one list a step."""
        return self.mean_over_ranks().tolist()

    def mean_over_ranks(self) -> Tensor:
        """The values so far, [count, terms], averaged over the ranks that share each step."""
        return all_reduce(self.values[: self.count]) / world_size()

    def restore(self, saved: Tensor) -> None:
        self.values[: len(saved)] = saved.to(self.values.device)
        self.count = len(saved)


def finite_means(rows: Sequence[Sequence[float]], terms: int) -> list[float | None]:
    """The mean of each term over the steps whose values are all finite; None without such steps."""
    finite = [values for values in rows if all(map(math.isfinite, values))]
    if not finite:
        return [None] * terms
    return [math.fsum(column) / len(finite) for column in zip(*finite, strict=True)]
