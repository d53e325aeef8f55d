"""The arguments and the report of both sides of `after_training.py`."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

Task = Callable[[argparse.Namespace], Callable[[], object]]
"""Prepares what is not measured, and returns what is."""


def scaled(args: argparse.Namespace, number: int) -> int:
    """A number of a task, as `--scale` makes it."""
    return max(1, round(args.scale * number))


def run_task(tasks: Mapping[str, Task]) -> None:
    """Measure the task that the command line names, and print its seconds and memory as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=tasks)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    args = parser.parse_args()
    measured = tasks[args.task](args)
    begun = time.perf_counter()
    measured()
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak *= 1 if sys.platform == "darwin" else 1024
    print(json.dumps({"seconds": seconds, "peak_bytes": peak}))
