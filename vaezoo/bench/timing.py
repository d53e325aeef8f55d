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
    first, _ = timed_steps(step, 1, device)
    count, warm_up = _WARM_UP_STEPS, 0.0
    for _ in range(2):  # the estimate is corrected once: the first steps are often slow
        each, _ = timed_steps(step, count, device)
        warm_up += count * each
        count = max(1, min(100_000, int(seconds / each) + 1))
    timed, enqueued = zip(*(timed_steps(step, count, device) for _ in range(windows)), strict=True)
    # At most 10 seconds of single steps, but at least five steps.
    singles = max(5, min(_LATENCIES, int(10 / statistics.median(timed))))
    return Timing(
        first=first,
        warm_up=warm_up,
        windows=timed,
        latencies=tuple(sorted(timed_steps(step, 1, device)[0] for _ in range(singles))),
        enqueue=statistics.median(enqueued),
    )


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all work that was enqueued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def timed_steps(
    step: Callable[[], object], count: int, device: torch.device
) -> tuple[float, float]:
    """Seconds of each of `count` steps, and of the host's part of it, which enqueues the step."""
    synchronize(device)
    begin = time.perf_counter()
    for _ in range(count):
        step()
    enqueued = time.perf_counter()
    synchronize(device)
    return (time.perf_counter() - begin) / count, (enqueued - begin) / count
