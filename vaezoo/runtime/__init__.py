"""The machine of a run: its CPUs, this process on it; and reports of the progress of long work.

Imports no torch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and the total."""

_listeners: list[OnProgress] = []


def report_progress(what: str, done: int, total: int) -> None:
    """Report that `done` of `total` parts of long work are finished; a command may show it."""
    if _listeners:
        _listeners[-1](what, done, total)


@contextmanager
def listen_to_progress(listener: OnProgress) -> Iterator[None]:
    """Call `listener` with each report in the body."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def is_rank0() -> bool:
    """Whether this process is rank 0 of its torchrun job, or in no such job."""
    return os.environ.get("RANK", "0") == "0"


def is_local_rank0() -> bool:
    """Whether this process is local rank 0, the first of its job on this machine."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def is_crowded(root: Path = Path("/")) -> bool:
    """Whether other processes use half of the machine's CPUs now, or more; takes 10 ms.

    root: where /proc is.
    """
    running = []
    with suppress(OSError, ValueError, IndexError):  # Linux has the file
        for _ in range(5):
            fields = (root / "proc/loadavg").read_text(encoding="ascii").split()
            running.append(int(fields[3].partition("/")[0]) - 1)  # without this process
            time.sleep(0.002)
    return bool(running) and 2 * sorted(running)[len(running) // 2] >= (os.cpu_count() or 1)


def available_cpus(root: Path = Path("/")) -> int:
    """The CPUs that this process may use: its affinity, and the quota of its control groups.

    Containers and job schedulers set the quota. root: where /proc and /sys are.
    """
    limits = [float(os.cpu_count() or 1)]
    with suppress(AttributeError):  # macOS and Windows have no affinity
        limits.append(float(len(os.sched_getaffinity(0))))
    groups: list[str] = []
    with suppress(OSError):
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    for line in [*groups, "0::/", "1:cpu:/"]:  # in a container the group is at the top
        _, controllers, group = line.split(":", 2)
        for version, names in ((2, ["cpu.max"]), (1, ["cpu.cfs_quota_us", "cpu.cfs_period_us"])):
            if version == 1 and "cpu" not in controllers.split(","):
                continue
            top = root / "sys/fs/cgroup" / ("" if version == 2 else controllers)
            for folder in {top / group.lstrip("/"), *(top / group.lstrip("/")).parents}:
                with suppress(OSError, ValueError):
                    texts = [(folder / name).read_text(encoding="ascii") for name in names]
                    quota, period = map(int, " ".join(texts).split())
                    if quota > 0 and period > 0:
                        limits.append(quota / period)
    return max(1, int(min(limits)))
