"""A cache of decoded images on disk: an .npy file and a .json file per entry, shared by runs."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.lib.format import open_memmap, write_array_header_1_0
from numpy.typing import NDArray
from torch import Tensor

from vaezoo.data.decode import Append
from vaezoo.errors import DataError, RunError
from vaezoo.io import full_path, read_json, write_json
from vaezoo.runtime.memory import physical_memory

VERSION = 2
"""The version of the format: entries of other versions are not read."""

LOCK_SECONDS = 3.0
"""How long to wait without a message for another process that builds the same entry."""

Build = Callable[[Append], dict[str, Any]]
"""Decodes all images, passes them to `append` in order, and returns the info to keep with them."""


class CachedImages(NamedTuple):
    """Decoded images, what was kept with them, and the sha256 of the pixels.

    images: uint8 [n, *shape], mapped from the file. Writing to them changes this process's copy.
    """

    images: Tensor
    info: dict[str, Any]
    digest: str


def cached_images(key: str, shape: tuple[int, ...], count: int, build: Build) -> CachedImages:
    """Map the images of `key` if an earlier run decoded them; build them if not.

    key: any text that determines the content: the source and its state, how it is decoded, and the
    version of the code. shape: of one image, such as (C, H, W).
    count: the most images that `build` appends; disk space for them is reserved before it starts.
    build: is called only when no valid entry exists, by one process at a time; the others wait and
    then map the same file. It is called a second time if writing the cache fails. What it returns
    must be JSON. If it raises, the exception passes through and nothing is left behind.

    If the cache cannot be written, the images are held in memory and one line on stderr says so.
    DataError if they would not fit there either.
    """
    name = hashlib.sha256(f"{VERSION} {list(shape)} {key}".encode()).hexdigest()[:40]
    try:
        return _from_cache(cache_folder() / "images", name, shape, count, build)
    except _CacheError as error:
        return _from_memory(shape, count, build, str(error))


def cache_folder() -> Path:
    """$VAEZOO_CACHE, or vaezoo under $XDG_CACHE_HOME, or ~/.cache/vaezoo."""
    chosen = os.environ.get("VAEZOO_CACHE")
    if chosen:
        return full_path(chosen)
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says to ignore relative paths.
    return Path(base if os.path.isabs(base) else os.path.expanduser("~/.cache")) / "vaezoo"


class _CacheError(Exception):
    """The cache cannot be used, and why; never an error of `build`."""


@contextmanager
def _cache_errors() -> Iterator[None]:
    try:
        yield
    except (OSError, NotImplementedError, RunError) as error:
        raise _CacheError(getattr(error, "strerror", None) or str(error)) from error


def _from_cache(
    folder: Path, name: str, shape: tuple[int, ...], count: int, build: Build
) -> CachedImages:
    path = folder / f"{name}.npy"
    cached = read_entry(path, shape)
    if cached is not None:
        return cached
    with _cache_errors():
        folder.mkdir(parents=True, exist_ok=True)
        # The system releases the lock when its process ends, also when that is killed.
        lock = FileLock(folder / f"{name}.lock")
        try:
            lock.acquire(timeout=LOCK_SECONDS)
        except Timeout:
            message = "vaezoo: waiting for another process that decodes the same images"
            print(message, file=sys.stderr)
            lock.acquire()
    try:
        # Another process may have built it while this one waited.
        cached = read_entry(path, shape)
        if cached is None:
            _remove_stale(folder, name)
            write_entry(path, shape, count, build)
            cached = read_entry(path, shape)
    finally:
        lock.release()
    if cached is None:
        raise _CacheError(f"{path} does not hold what was written to it")
    return cached


def read_entry(path: Path, shape: tuple[int, ...]) -> CachedImages | None:
    """Map an entry; None when it is missing, unreadable, damaged or the entry of another key."""
    try:
        about = read_json(path.with_suffix(".json"))
        expected_sum = about.pop("checksum")
        sealed, digest, info = about["sealed"], about["digest"], about["info"]
        expected = np.dtype(np.uint8), (about["count"], *shape)
        if expected_sum != checksum(about) or about["name"] != path.stem:
            return None
        if type(sealed) is not int or not isinstance(digest, str) or not isinstance(info, dict):
            return None
        pixels = _map(path)
        if (pixels.dtype, pixels.shape) != expected:
            return None
        # The time of modification shows that nobody wrote to the file since it was finished.
        if path.stat().st_mtime_ns != sealed:
            if hashlib.sha256(pixels.data).hexdigest() != digest:
                return None
            # A cache that cannot be written is compared each time.
            with suppress(OSError, OverflowError):
                os.utime(path, ns=(sealed, sealed))
    except Exception:  # numpy raises errors of any kind for a damaged header
        return None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return CachedImages(torch.from_numpy(pixels), info, digest)


def _map(path: Path) -> NDArray[np.uint8]:
    try:
        return open_memmap(path, mode="c")
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
    # The system may refuse a private writable mapping that is larger than its memory.
    return open_memmap(path, mode="r")


def checksum(about: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def write_entry(path: Path, shape: tuple[int, ...], count: int, build: Build) -> None:
    """Build an entry. A process that is killed leaves the old entry, or none."""
    temporary = path.with_name(f"{path.stem}.{os.getpid()}.tmp")
    try:
        writer = Writer(temporary, shape, count)
        try:
            info = build(writer.append)
            writer.finish()
        finally:
            writer.close()
        # Whole even seconds: every file system can store them.
        sealed = int(time.time()) // 2 * 2 * 10**9
        about = {"name": path.stem, "count": writer.done, "sealed": sealed, "info": info}
        about["digest"] = writer.digest.hexdigest()
        with _cache_errors():
            os.utime(temporary, ns=(sealed, sealed))
            temporary.replace(path)
            # Last: pixels without this file, or with an older one, do not count.
            write_json(path.with_suffix(".json"), {**about, "checksum": checksum(about)})
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


class Writer:
    """Writes images to an .npy file. Every method raises _CacheError if the disk fails."""

    @_cache_errors()
    def __init__(self, path: Path, shape: tuple[int, ...], count: int) -> None:
        """count: the most images that will come; a disk too full for them is noticed here."""
        self.shape, self.count, self.done = shape, count, 0
        self.digest = hashlib.sha256()
        self._file = path.open("wb", buffering=0)
        try:
            self._write_header(count)
            _reserve(self._file.fileno(), self._file.tell() + count * math.prod(shape))
        except BaseException:
            self._file.close()
            raise

    @_cache_errors()
    def append(self, images: NDArray[np.uint8]) -> None:
        _check(images, self.shape, self.count - self.done)
        pixels = np.ascontiguousarray(images).reshape(-1)
        self.digest.update(pixels.data)
        data = pixels.data
        while data:
            data = data[self._file.write(data) :]
        self.done += len(images)

    @_cache_errors()
    def finish(self) -> None:
        """Write the final number of images, and flush everything to the disk."""
        self._file.truncate()
        self._file.seek(0)
        self._write_header(self.done)
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _write_header(self, count: int) -> None:
        # numpy pads headers so that the first number of the shape can change later.
        about = {"descr": "|u1", "fortran_order": False, "shape": (count, *self.shape)}
        write_array_header_1_0(self._file, about)


def _check(images: NDArray[np.uint8], shape: tuple[int, ...], most: int) -> None:
    """ValueError unless these are at most `most` decoded images of the shape."""
    if images.dtype != np.uint8 or images.shape[1:] != shape:
        raise ValueError(f"images are {images.dtype} {images.shape}, not uint8 (n, {shape})")
    if len(images) > most:
        raise ValueError(f"{len(images)} more images, where at most {most} were announced")


def _reserve(descriptor: int, size: int) -> None:
    """Reserve disk space, so that a full disk is noticed before anything is decoded."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        # This file system cannot reserve: a full disk is noticed while writing.


def _from_memory(shape: tuple[int, ...], count: int, build: Build, reason: str) -> CachedImages:
    size = count * math.prod(shape)
    where = f"the cache {cache_folder()} cannot be used ({reason})"
    if size > physical_memory() // 2:
        raise DataError(
            f"{where}, and {count:,} images of {size / 1e9:.1f} GB are too many to hold in memory: "
            "set VAEZOO_CACHE to a folder with enough space"
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
        _check(more, shape, count - done)
        images[done : done + len(more)] = more
        done += len(more)

    info = json.loads(json.dumps(build(append)))
    digest = hashlib.sha256(images[:done].data).hexdigest()
    return CachedImages(torch.from_numpy(images[:done]), info, digest)


def _remove_stale(folder: Path, held: str) -> None:
    """Remove temporary files of killed processes: those whose lock nobody holds.

    held: the name whose lock this process has.
    """
    for stale in folder.glob("*.tmp"):
        name = stale.name.lstrip(".").partition(".")[0]
        with suppress(OSError, Timeout):
            if name == held:
                stale.unlink(missing_ok=True)
            else:
                with FileLock(folder / f"{name}.lock").acquire(timeout=0):
                    stale.unlink(missing_ok=True)
