"""The clocks of a benchmark, and the machine: its description, specified and measured rates."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from vaezoo.runtime.device import device_name, versions

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


# Dense rates in FLOP/s, memory in bytes/s. A device that is not here has no peak: no guesses.
_HOPPER = {"fp32": 67e12, "tf32": 494.7e12, "bf16": 989.4e12}
_AMPERE = {"fp32": 19.5e12, "tf32": 156e12, "bf16": 312e12}
PEAKS: dict[str, tuple[dict[str, float], float, str]] = {
    "NVIDIA H200": (_HOPPER, 4.8e12, "NVIDIA H200 Tensor Core GPU datasheet, SXM5"),
    "NVIDIA H100 80GB HBM3": (_HOPPER, 3.35e12, "NVIDIA H100 Tensor Core GPU datasheet, SXM5"),
    "NVIDIA A100-SXM4-80GB": (
        _AMPERE,
        2.039e12,
        "NVIDIA A100 Tensor Core GPU datasheet, SXM4 80 GB",
    ),
}

_SECONDS = 0.3


def describe_machine(device: torch.device, precisions: list[str]) -> dict[str, Any]:
    """The `environment` of a report, with the measured rates in FLOP/s and bytes/s."""
    peaks = {precision: specified_peak(device, precision) for precision in precisions}
    return {
        "device": device_name(device),
        "device_type": device.type,
        "driver": _driver(device),
        "cpu_cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "layout": "channels-last",
        "versions": versions(),
        "gemm_flops_per_second": {p: gemm_rate(device, p) for p in precisions},
        "copy_bytes_per_second": copy_rate(device),
        "peak_flops_per_second": {p: peak[0] if peak else None for p, peak in peaks.items()},
        "peak_sources": sorted({peak[1] for peak in peaks.values() if peak}),
    }


def specified_peak(device: torch.device, precision: str) -> tuple[float, str] | None:
    """FLOP/s by the maker's specification, and its source; None for a device not in PEAKS."""
    if device.type != "cuda" or torch.cuda.get_device_name(device) not in PEAKS:
        return None
    rates, _, source = PEAKS[torch.cuda.get_device_name(device)]
    return (rates[precision], source) if precision in rates else None


def gemm_rate(device: torch.device, precision: str) -> float:
    """FLOP/s of the fastest of a few square matrix products, measured now."""
    sizes = (2048, 4096, 8192) if device.type == "cuda" else (512, 1024, 2048)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    best = 0.0
    for size in sizes:
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        product = partial(torch.mm, a, b, out=torch.empty_like(a))
        best = max(best, 2 * size**3 / _shortest_time(product, device))
    return best


def copy_rate(device: torch.device) -> float:
    """Bytes read and written per second by copying a tensor that is too large for any cache."""
    source = torch.empty(1 << (28 if device.type == "cuda" else 25), device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _shortest_time(lambda: target.copy_(source), device)


def _shortest_time(step: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest step: a peak rate is what the machine can do, not what it did."""
    best, begun = timed_steps(step, 1, device)[0], time.perf_counter()
    while time.perf_counter() - begun < _SECONDS:
        best = min(best, timed_steps(step, 3, device)[0])
    return best


def _driver(device: torch.device) -> str | None:
    if device.type != "cuda":
        return None
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.split("\n")[0].strip() or None
