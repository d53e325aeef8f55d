"""Measure models one subprocess after another, and gather their rows."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import IO, Any

from vaezoo.bench.job import Job
from vaezoo.bench.row import empty_row
from vaezoo.plugins.registry import subprocess_environment

Told = Callable[[dict[str, Any]], None]


def run_jobs(jobs: Sequence[Job], *, timeout: float, told: Told) -> list[dict[str, Any]]:
    """Every row of every job. timeout: seconds that a row may take. told: hears of each row."""
    rows = []
    for job in jobs:
        for row in run_job(job, timeout):
            rows.append(row)
            told(row)
    return rows


def run_job(job: Job, timeout: float) -> list[dict[str, Any]]:
    """The rows of one model; the cases that its process did not live to tell get one each."""
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
    lines: queue.Queue[str | None] = queue.Queue()
    last_words: list[str] = []
    readers = [
        threading.Thread(target=_forward, args=(process.stdout, lines), daemon=True),
        threading.Thread(target=_keep_last, args=(process.stderr, last_words), daemon=True),
    ]
    for reader in readers:
        reader.start()
    try:
        process.stdin.write(json.dumps(job.to_dict()))
        process.stdin.close()
    except BrokenPipeError:
        last_words.append("it ended before it was told what to do")
    rows: list[dict[str, Any]] = []
    status, reason = "", ""
    try:
        while len(rows) < len(job.cases) and not status:
            status, reason, line = _next_line(lines, timeout)
            if line is not None:
                rows.append(json.loads(line))
    finally:
        process.kill()
        code = process.wait()
        for reader in readers:
            reader.join()
    if status == "crashed":
        reason = f"exit code {code}" + (f": {last_words[-1][:200]}" if last_words else "")
    return rows + [empty_row(job.model, case, status, reason) for case in job.cases[len(rows) :]]


def _next_line(lines: queue.Queue[str | None], timeout: float) -> tuple[str, str, str | None]:
    """(status, reason, line): a line, or why there will be none."""
    begun = time.monotonic()
    try:
        line = lines.get(timeout=timeout)
    except queue.Empty:
        return "timeout", f"no row within {time.monotonic() - begun:.0f} s", None
    return ("", "", line) if line is not None else ("crashed", "", None)


def _forward(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _keep_last(stream: IO[str], kept: list[str]) -> None:
    """A plugin may write without end: only its last words are kept."""
    for line in stream:
        if line.strip():
            kept[:] = [line.strip()]
