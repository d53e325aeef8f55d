"""The arguments and the report of both sides of `after_training.py`."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

from harness import peak_bytes

Task = Callable[[argparse.Namespace], Callable[[], object]]
"""Prepares what is not measured, and returns what is."""


def scaled(args: argparse.Namespace, number: int) -> int:
    """A number of a task, as `--scale` makes it."""
    return max(1, round(args.scale * number))


def run_task(*tasks: Task) -> None:
    """Measure the task that the command line names, and print its seconds and memory as JSON."""
    named = {task.__name__: task for task in tasks}
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=named)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    args = parser.parse_args()
    measured = named[args.task](args)
    begun = time.perf_counter()
    measured()
    seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds, "peak_bytes": peak_bytes()}))
