"""A benchmark job for one subprocess, and the rows that it gives. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Mode = Literal["train", "encode", "decode", "sample"]
MODES: tuple[Mode, ...] = ("train", "encode", "decode", "sample")

LAUNCH_SHARE = 0.9
"""A step is launch-bound when the host needs this fraction of its time to enqueue it."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What one row measures: a mode at a batch size, in a precision, compiled or not."""

    mode: Mode
    batch_size: int
    precision: str
    compile: str


@dataclass(frozen=True, kw_only=True)
class Job:
    """A model with its cases.

    options: those of the model and of the loss, flat. shape: of an image. windows, seconds: the
    number of timed windows, and the least duration of each. end_to_end: training rows include the
    data. largest: search the largest batch that fits, from the case's own on. gemm, copy: the
    machine's measured rates, FLOP/s by precision, and bytes/s.
    """

    model: str
    loss: str | None
    options: Mapping[str, Any]
    shape: tuple[int, int, int]
    device: str
    cases: tuple[Case, ...]
    windows: int
    seconds: float
    end_to_end: bool
    largest: bool
    gemm: Mapping[str, float]
    copy: float

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Job:
        cases = tuple(Case(**case) for case in values["cases"])
        return cls(**{**values, "cases": cases, "shape": tuple(values["shape"])})


def empty_row(model: str, case: Case, status: str, reason: str = "") -> dict[str, Any]:
    """The row of a case without numbers. reason: why there are none."""
    return {
        "model": model,
        **asdict(case),
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
    gemm_share: float | None, copy_share: float | None, enqueue_share: float | None
) -> str | None:
    """What limits a step: compute, memory or launch; None if that is unknown.

    enqueue_share: the fraction of a step in which the host enqueues it, None on a CPU. Below
    LAUNCH_SHARE the larger one of the fractions of the measured GEMM and copy rates decides.
    """
    if enqueue_share is not None and enqueue_share >= LAUNCH_SHARE:
        return "launch"
    if gemm_share is None or copy_share is None:
        return None
    return "compute" if gemm_share >= copy_share else "memory"


def sanity_check(row: Mapping[str, Any]) -> str | None:
    """Why a row cannot be true: it used more than the whole machine. None if it can be true."""
    for share, of in (("gemm_share", "measured GEMM rate"), ("peak_share", "specified peak")):
        if row[share] is not None and row[share] > 1.0:
            return f"{row[share]:.0%} of the {of}: the count, the clock or the peak is wrong"
    return None
