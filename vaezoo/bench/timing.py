"""Two clocks: throughput over windows of steps, and latency of single steps."""

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
    """The times of a step, in seconds.

    first: the first call, with compilation. warm_up: the calls after it that do not count.
    windows: a step's time in each window, synchronized at the window's end only. latencies: single
    steps, each synchronized, sorted. enqueue: the host's time to enqueue a step; on a CPU the same
    as a step.
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
        """The latency that this percentage of the steps does not exceed."""
        return self.latencies[round(percent / 100 * (len(self.latencies) - 1))]


def time_step(
    step: Callable[[], object], device: torch.device, *, windows: int, seconds: float
) -> Timing:
    """Measure a step. windows: how many; seconds: the least duration of each."""
    first = _elapsed(step, 1, device)
    warm_up = _elapsed(step, _WARM_UP_STEPS, device)
    # The estimate from the warm-up is corrected once: the first steps are often slow.
    count = _steps_for(seconds, warm_up / _WARM_UP_STEPS)
    trial = _elapsed(step, count, device)
    count = _steps_for(seconds, trial / count)
    timed, enqueued = [], []
    for _ in range(windows):
        synchronize(device)
        begin = time.perf_counter()
        for _ in range(count):
            step()
        enqueued.append((time.perf_counter() - begin) / count)
        synchronize(device)
        timed.append((time.perf_counter() - begin) / count)
    # At most 10 seconds of single steps, but at least five steps.
    singles = max(5, min(_LATENCIES, int(10 / statistics.median(timed))))
    return Timing(
        first=first,
        warm_up=warm_up + trial,
        windows=tuple(timed),
        latencies=tuple(sorted(_elapsed(step, 1, device) for _ in range(singles))),
        enqueue=statistics.median(enqueued),
    )


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all work that was enqueued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _steps_for(seconds: float, step: float) -> int:
    return max(1, min(100_000, int(seconds / step) + 1))


def _elapsed(step: Callable[[], object], count: int, device: torch.device) -> float:
    synchronize(device)
    begin = time.perf_counter()
    for _ in range(count):
        step()
    synchronize(device)
    return time.perf_counter() - begin
