"""Available memory, so that a request that cannot fit is refused before it is made."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def available_memory() -> int:
    """Bytes that this process can still use: of the machine, its container and its own limits.

    sys.maxsize if the system does not say.
    """
    return min(_of_the_machine(), _of_the_container(), _of_the_process())


def physical_memory() -> int:
    """Bytes of memory of the machine; sys.maxsize if the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return sys.maxsize


def _of_the_machine() -> int:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return physical_memory()


def _of_the_container() -> int:
    """The limit of control groups (version 2), which containers and job schedulers set."""
    group = Path("/sys/fs/cgroup")
    try:
        most = int((group / "memory.max").read_text(encoding="ascii"))
        return max(0, most - int((group / "memory.current").read_text(encoding="ascii")))
    except (OSError, ValueError):  # no such file, or "max": there is no limit
        return sys.maxsize


def _of_the_process() -> int:
    """The limit on address space that `ulimit -v` sets."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return sys.maxsize
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        return max(0, limit - used * resource.getpagesize())
    except (ImportError, OSError, ValueError, IndexError):
        return sys.maxsize
