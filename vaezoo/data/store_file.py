"""One file of the store: pixels, a JSON trailer that describes them, and where that begins.

The pixels come first, so that they are mapped from a page boundary. A file that was finished has a
time of modification that its trailer knows: whatever changed it since (damage, a copy) shows there,
and only then are the pixels read and compared with their digest.
"""

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
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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
