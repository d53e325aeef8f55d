"""Benchmark jobs, run in subprocesses one after another, and their rows. No torch here."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from threading import Thread
from typing import IO, Any, Literal

from vaezoo.plugins.registry import subprocess_environment

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

    names: the parts and the loss, by section; None for the model's own. options: by section.
    shape: of an image. windows, seconds: the number of timed windows, and the least duration of
    each. end_to_end: training rows include the data. largest: search the largest batch that fits,
    from the case's own on. gemm, copy: the machine's measured rates, FLOP/s by precision, and
    bytes/s.
    """

    model: str
    names: Mapping[str, str | None]
    options: Mapping[str, Mapping[str, Any]]
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
    numbers = (
        "graph shape end_to_end images_per_second images_per_second_windows latency_ms "
        "flops_per_image flops_missed bytes_per_image fused_bytes_per_image operations "
        "roof_share gemm_share copy_share peak_share peak_source bound_by "
        "peak_memory_bytes parameters first_step_seconds warm_up_seconds"
    )
    row = {"model": model, **asdict(case), **dict.fromkeys(numbers.split())}
    row |= {"graph": False, "end_to_end": False}
    row |= {"images_per_second_windows": [], "flops_missed": {}}
    return {**row, "status": status, "reason": reason}


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


Row = dict[str, Any]


def run_job(job: Job, timeout: float) -> list[Row]:
    """One row for each case; after a crash or a timeout the remaining cases get empty rows."""
    process = subprocess.Popen(
        [sys.executable, "-m", "vaezoo.bench.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, **subprocess_environment()},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    lines: queue.Queue[str] = queue.Queue()
    last_error: deque[str] = deque(maxlen=1)  # a plugin may print without end
    threads = [
        Thread(target=_read_lines, args=(process.stdout, lines), daemon=True),
        Thread(target=_read_errors, args=(process.stderr, last_error), daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        process.stdin.write(json.dumps(asdict(job)))
        process.stdin.close()
    except BrokenPipeError:
        last_error.append("it ended before it could read its job")
    rows: list[Row] = []
    status = ""
    try:
        while len(rows) < len(job.cases) and not status:
            line = lines.get(timeout=timeout)
            if line:
                rows.append(json.loads(line))
            else:
                status = "crashed"
    except queue.Empty:
        status = "timeout"
    finally:
        process.kill()
        code = process.wait()
        for thread in threads:
            thread.join()
    reason = f"no row within {timeout:.0f} s"
    if status == "crashed":
        reason = ": ".join([f"exit code {code}", *(text[:200] for text in last_error)])
    return rows + [empty_row(job.model, case, status, reason) for case in job.cases[len(rows) :]]


def _read_lines(stream: IO[str], lines: queue.Queue[str]) -> None:
    for line in stream:
        lines.put(line)
    lines.put("")  # the end


def _read_errors(stream: IO[str], last: deque[str]) -> None:
    last.extend(line.strip() for line in stream if line.strip())
