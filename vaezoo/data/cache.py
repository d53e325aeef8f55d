"""Images decoded once, in a cache file that runs share."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import mmap
import os
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor

from vaezoo.data import cache as store_file
from vaezoo.errors import DataError
from vaezoo.io import full_path
from vaezoo.runtime.memory import physical_memory

VERSION = 1
"""Of the format."""

FOOTER = struct.Struct("<QI8s")
"""Where the trailer begins, its CRC-32, and MAGIC."""

MAGIC = b"vaezoo-1"
NO_RESERVE = 0x4000 if sys.platform == "linux" else 0
"""MAP_NORESERVE, which the mmap module names since 3.13: no memory is set aside for a mapping that
is larger than the memory and that nobody writes to."""

Append = Callable[[NDArray[np.uint8]], None]
"""Takes the next decoded images, uint8 [n, *shape]."""


class Stored(NamedTuple):
    """Decoded images.

    images: uint8 [n, *shape], mapped from the store (writing changes this process's view alone).
    info: what was kept with them. digest: sha256 of the pixels, the same wherever they were
    decoded.
    """

    images: Tensor
    info: dict[str, Any]
    digest: str


def check(images: NDArray[np.uint8], shape: tuple[int, ...], room: int) -> None:
    """ValueError unless these are at most `room` decoded images of the shape."""
    if images.dtype != np.uint8 or images.shape[1:] != shape:
        raise ValueError(f"images are {images.dtype} {images.shape}, not uint8 (n, {shape})")
    if len(images) > room:
        raise ValueError(f"{len(images)} more images, where there is room for {room}")


class Writer:
    """Writes a store file. OSError from any method means that the file cannot be written."""

    def __init__(self, path: Path, name: str, shape: tuple[int, ...], count: int) -> None:
        """count: the most images that there will be; a disk too full for them is noticed here."""
        self.path, self.name, self.shape, self.count = path, name, shape, count
        self.done = 0
        self._digest = hashlib.sha256()
        self._file = path.open("wb", buffering=0)
        try:
            _reserve(self._file.fileno(), count * math.prod(shape))
        except BaseException:
            self._file.close()
            raise

    def append(self, images: NDArray[np.uint8]) -> None:
        check(images, self.shape, self.count - self.done)
        pixels = np.ascontiguousarray(images)
        # An empty view cannot be cast.
        data = pixels.data.cast("B") if pixels.size else memoryview(b"")
        self._write(data)
        self._digest.update(data)
        self.done += len(images)

    def finish(self, info: dict[str, Any]) -> None:
        """Write the trailer and bring everything to the disk."""
        # Whole even seconds: every file system can keep them.
        sealed = int(time.time()) // 2 * 2 * 10**9
        trailer = json.dumps(
            {
                "name": self.name,
                "shape": list(self.shape),
                "count": self.done,
                "digest": self._digest.hexdigest(),
                "sealed": sealed,
                "info": info,
            }
        ).encode()
        begin = self._file.tell()
        self._write(memoryview(trailer))
        self._write(memoryview(FOOTER.pack(begin, zlib.crc32(trailer), MAGIC)))
        self._file.truncate()
        os.fsync(self._file.fileno())
        self._file.close()
        os.utime(self.path, ns=(sealed, sealed))

    def close(self) -> None:
        self._file.close()

    def _write(self, data: memoryview) -> None:
        while data:
            data = data[self._file.write(data) :]


def read(path: Path, name: str, shape: tuple[int, ...]) -> Stored | None:
    """Map a store file; None when it is missing, unreadable, damaged or another's."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            file.seek(-FOOTER.size, os.SEEK_END)
            begin, checksum, magic = FOOTER.unpack(file.read())
            length = status.st_size - FOOTER.size - begin
            if magic != MAGIC or length < 0:
                return None
            file.seek(begin)
            text = file.read(length)
            if zlib.crc32(text) != checksum:
                return None
            trailer = json.loads(text)
            count = trailer["count"]
            size = count * math.prod(shape)
            if trailer["name"] != name or trailer["shape"] != list(shape) or size != begin:
                return None
            images = _map(file.fileno(), size).view(count, *shape)
            sealed, digest, info = trailer["sealed"], trailer["digest"], trailer["info"]
    except (OSError, struct.error, ValueError, KeyError, TypeError, RecursionError, RuntimeError):
        return None
    if type(sealed) is not int or not isinstance(digest, str) or not isinstance(info, dict):
        return None
    if status.st_mtime_ns != sealed:
        if hashlib.sha256(images.numpy().data if size else b"").hexdigest() != digest:
            return None
        # A cache that cannot be written is compared each time.
        with suppress(OSError, OverflowError):
            os.utime(path, ns=(sealed, sealed))
    return Stored(images, info, digest)


def _map(descriptor: int, size: int) -> Tensor:
    """uint8 [size], private to this process: its writes never reach the file."""
    if size == 0:
        return torch.empty(0, dtype=torch.uint8)
    if sys.platform == "win32":
        mapped = mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY)
    else:
        flags = mmap.MAP_PRIVATE | NO_RESERVE
        mapped = mmap.mmap(descriptor, size, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    return torch.frombuffer(mapped, dtype=torch.uint8)


def _reserve(descriptor: int, size: int) -> None:
    """Room on the disk, so that a full one is noticed before anything is decoded."""
    if size == 0 or not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        # This file system cannot reserve: a full disk is noticed while writing.


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
