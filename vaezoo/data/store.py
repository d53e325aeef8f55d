"""The store: images decoded once to uint8, mapped from a file that all runs share.

A store is made under a temporary name and renamed when it is whole, so a file of the final name is
complete, and whoever mapped an older one keeps it. The cache folder may be deleted at any time: the
next run decodes again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from vaezoo.data import store_file
from vaezoo.data.store_file import Append, Stored
from vaezoo.errors import DataError
from vaezoo.files import full_path
from vaezoo.memory import physical_memory

Build = Callable[[Append], dict[str, Any]]
"""Decodes everything, handing it to `append` in order, and returns what to keep with it."""

PATIENCE = 3.0
"""Seconds to wait for another process that builds the same store before saying so."""


def cached_images(key: str, shape: tuple[int, ...], count: int, build: Build) -> Stored:
    """The images that `key` stands for: mapped if a run has decoded them before, built if not.

    key: any text that says everything about the content: which source in which state, decoded how,
    by which version of the code. shape: of one image, such as (C, H, W).
    count: how many images `build` appends at most; room for them is reserved before it starts.
    build: is called only when there is no sound store, by one process at a time; the others wait
    for it and then map the same file. It may be called a second time when the cache cannot be
    written after all. What it returns must be JSON; an exception that it raises passes through,
    and nothing is left behind.

    Where the cache cannot be written, the images are held in memory and one line on stderr says so;
    DataError when they would not fit there either.
    """
    name = hashlib.sha256(f"{store_file.VERSION} {list(shape)} {key}".encode()).hexdigest()[:40]
    try:
        return _from_cache(name, shape, count, build)
    except _CacheError as error:
        return _from_memory(shape, count, build, str(error))


def cache_folder() -> Path:
    """$VAEZOO_CACHE, or vaezoo under $XDG_CACHE_HOME, or ~/.cache/vaezoo."""
    chosen = os.environ.get("VAEZOO_CACHE")
    if chosen:
        return full_path(chosen)
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification has relative paths ignored.
    return Path(base if os.path.isabs(base) else os.path.expanduser("~/.cache")) / "vaezoo"


class _CacheError(Exception):
    """The cache cannot be used, and why: never the fault of `build`."""


@contextmanager
def _cache_at_fault() -> Iterator[None]:
    try:
        yield
    except (OSError, NotImplementedError) as error:
        raise _CacheError(getattr(error, "strerror", None) or str(error)) from error


def _from_cache(name: str, shape: tuple[int, ...], count: int, build: Build) -> Stored:
    with _cache_at_fault():
        folder = cache_folder() / "images"
        path = folder / f"{name}.store"
        stored = store_file.read(path, name, shape)
        if stored is not None:
            return stored
        folder.mkdir(parents=True, exist_ok=True)
        lock = _only_builder(_lock_of(folder, name))
    try:
        # Another process may have built it while this one waited.
        stored = store_file.read(path, name, shape)
        if stored is None:
            _remove_remains(folder, name)
            _write(path, name, shape, count, build)
            stored = store_file.read(path, name, shape)
    finally:
        lock.release()
    if stored is None:
        raise _CacheError(f"{path} does not hold what was written to it")
    return stored


def _write(path: Path, name: str, shape: tuple[int, ...], count: int, build: Build) -> None:
    temporary = path.with_name(f"{name}.{os.getpid()}.tmp")
    try:
        with _cache_at_fault():
            writer = store_file.Writer(temporary, name, shape, count)
        try:

            def append(images: NDArray[np.uint8]) -> None:
                with _cache_at_fault():
                    writer.append(images)

            info = build(append)
            with _cache_at_fault():
                writer.finish(info)
        finally:
            writer.close()
        with _cache_at_fault():
            temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _from_memory(shape: tuple[int, ...], count: int, build: Build, reason: str) -> Stored:
    size = count * math.prod(shape)
    where = f"the cache {cache_folder()} cannot be used ({reason})"
    if size > physical_memory() // 2:
        raise DataError(
            f"{where}, and {count:,} images of {size / 1e9:.1f} GB are too many to hold in memory: "
            "set VAEZOO_CACHE to a folder with room for them"
        )
    print(
        f"vaezoo: {where}: images are held in memory and decoded again by the next run; "
        "VAEZOO_CACHE names another folder",
        file=sys.stderr,
    )
    images = np.empty((count, *shape), dtype=np.uint8)
    done = 0

    def append(more: NDArray[np.uint8]) -> None:
        nonlocal done
        store_file.check(more, shape, count - done)
        images[done : done + len(more)] = more
        done += len(more)

    info = json.loads(json.dumps(build(append)))
    digest = hashlib.sha256(images[:done].data).hexdigest()
    return Stored(torch.from_numpy(images[:done]), info, digest)


def _lock_of(folder: Path, name: str) -> FileLock:
    """The system drops the lock with the process that holds it, however that one ends."""
    return FileLock(folder / f"{name}.lock")


def _only_builder(lock: FileLock) -> FileLock:
    """The lock, held."""
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        print("vaezoo: waiting for another process that decodes the same images", file=sys.stderr)
        lock.acquire()
    return lock


def _remove_remains(folder: Path, held: str) -> None:
    """Remove what killed processes left half-built: those files whose lock nobody holds.

    held: the name whose lock this process has.
    """
    for remains in folder.glob("*.tmp"):
        name = remains.name.partition(".")[0]
        with suppress(OSError, Timeout):
            if name == held:
                remains.unlink(missing_ok=True)
            else:
                with _lock_of(folder, name).acquire(timeout=0):
                    remains.unlink(missing_ok=True)
