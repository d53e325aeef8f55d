"""Available memory, so that a request that cannot fit is refused before it is made."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path


def available_memory() -> int:
    """Bytes that this process can still use: of the machine, its container and its own limits.

    sys.maxsize if the system does not say.
    """
    limits = [physical_memory(), _of_the_process()]
    with suppress(OSError, ValueError, IndexError):
        memory = Path("/proc/meminfo").read_text(encoding="ascii")
        limits.append(1024 * int(memory.partition("MemAvailable:")[2].split()[0]))
    # Control groups (version 2): containers and job schedulers set this limit. Without one there
    # is no such file, or it holds "max".
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        used = int((group / "memory.current").read_text(encoding="ascii"))
        limits.append(max(0, limit - used))
    return min(limits)


def physical_memory() -> int:
    """Bytes of memory of the machine; sys.maxsize if the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
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
