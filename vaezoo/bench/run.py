"""Runs benchmark jobs in subprocesses, one after another, and collects their rows."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from threading import Thread
from typing import IO, Any

from vaezoo.bench.job import Job, empty_row
from vaezoo.plugins.registry import subprocess_environment

Row = dict[str, Any]


def run_jobs(jobs: Sequence[Job], *, timeout: float, on_row: Callable[[Row], None]) -> list[Row]:
    """The rows of all jobs. timeout: seconds for each row. on_row: called with each row."""
    rows = []
    for job in jobs:
        for row in run_job(job, timeout):
            rows.append(row)
            on_row(row)
    return rows


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
