"""Two clocks: throughput over windows of steps, latency a step at a time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

_WARM_UP_STEPS = 3
_LATENCIES = 20


@dataclass(frozen=True)
class Timing:
    """What a step takes, in seconds.

    first: the first call, with whatever is compiled in it. warm_up: the calls after it that are
    not counted. windows: a step's time in each window, synchronised at its end only.
    latencies: single steps, each synchronised, in rising order. enqueue: how long the host takes
    to hand a step to the device; on a CPU the same as a step.
    """

    first: float
    warm_up: float
    windows: tuple[float, ...]
    latencies: tuple[float, ...]
    enqueue: float

    @property
    def step(self) -> float:
        """The median over the windows."""
        return statistics.median(self.windows)

    def percentile(self, percent: float) -> float:
        """The latency that so many percent of the steps do not exceed."""
        position = round(percent / 100 * (len(self.latencies) - 1))
        return self.latencies[position]


def time_step(
    step: Callable[[], object], device: torch.device, *, windows: int, seconds: float
) -> Timing:
    """Measure a step. windows: how many; seconds: what each lasts at least."""
    first = _elapsed(step, 1, device)
    warm_up = _elapsed(step, _WARM_UP_STEPS, device)
    # A guess from the warm-up, mended once: the first steps are often slow.
    count = _steps_for(seconds, warm_up / _WARM_UP_STEPS)
    trial = _elapsed(step, count, device)
    count = _steps_for(seconds, trial / count)
    timed, enqueued = [], []
    for _ in range(windows):
        synchronise(device)
        begin = time.perf_counter()
        for _ in range(count):
            step()
        enqueued.append((time.perf_counter() - begin) / count)
        synchronise(device)
        timed.append((time.perf_counter() - begin) / count)
    latencies = sorted(_elapsed(step, 1, device) for _ in range(_latency_steps(timed)))
    return Timing(
        first=first,
        warm_up=warm_up + trial,
        windows=tuple(timed),
        latencies=tuple(latencies),
        enqueue=statistics.median(enqueued),
    )


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _steps_for(seconds: float, step: float) -> int:
    return max(1, min(100_000, int(seconds / step) + 1))


def _latency_steps(timed: list[float]) -> int:
    """Twenty steps, fewer where they would take more than ten seconds, never below five."""
    return max(5, min(_LATENCIES, int(10 / statistics.median(timed))))


def _elapsed(step: Callable[[], object], count: int, device: torch.device) -> float:
    synchronise(device)
    begin = time.perf_counter()
    for _ in range(count):
        step()
    synchronise(device)
    return time.perf_counter() - begin
