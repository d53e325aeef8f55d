"""One row of a report: from what was counted and timed to what it means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vaezoo.bench.job import Case

LAUNCH_SHARE = 0.9
"""A step is launch-bound when handing it over takes this share of its time or more."""


def empty_row(model: str, case: Case, status: str, reason: str = "") -> dict[str, Any]:
    """A row of a case that gave no numbers, and why."""
    return {
        "model": model,
        "mode": case.mode,
        "batch_size": case.batch_size,
        "precision": case.precision,
        "compile": case.compile,
        "graph": False,
        "shape": None,
        "end_to_end": False,
        "images_per_second": None,
        "images_per_second_windows": [],
        "latency_ms": None,
        "flops_per_image": None,
        "flops_missed": {},
        "bytes_per_image": None,
        "gemm_share": None,
        "copy_share": None,
        "peak_share": None,
        "peak_source": None,
        "bound_by": None,
        "peak_memory_bytes": None,
        "parameters": None,
        "first_step_seconds": None,
        "warm_up_seconds": None,
        "status": status,
        "reason": reason,
    }


def bound_by(
    *, gemm_share: float | None, copy_share: float | None, enqueue_share: float | None
) -> str | None:
    """What a step waits for: compute, memory or launch; None where that cannot be told.

    enqueue_share: the host's share of a step on a device of its own, None on a CPU. Otherwise it is
    the roof that is nearer: the share of the measured GEMM rate against that of the copy rate.
    """
    if enqueue_share is not None and enqueue_share >= LAUNCH_SHARE:
        return "launch"
    if gemm_share is None or copy_share is None:
        return None
    return "compute" if gemm_share >= copy_share else "memory"


def sanity_check(row: Mapping[str, Any]) -> str | None:
    """Why a row cannot be true: more than the whole of a machine was used. None if it can."""
    for share, of in (("gemm_share", "measured GEMM rate"), ("peak_share", "specified peak")):
        value = row[share]
        if value is not None and value > 1.0:
            return f"{value:.0%} of the {of}: the count, the clock or the ceiling is wrong"
    return None
