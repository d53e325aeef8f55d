"""idx files, the format of MNIST and its kin: a header with the shape, then the bare values."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import torch
from torch import Tensor

from vaezoo.errors import DataError
from vaezoo.io import open_regular
from vaezoo.runtime.memory import available_memory

# The third byte of the file. Values are big-endian; floats occur in no data set that is read here.
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4"}
_DIMENSIONS = 8
"""More than this is no idx file that anyone has made."""

_GZIP_RATIO = 1100
"""DEFLATE makes nothing smaller than 1/1032: a header that claims more than this is damaged."""


def read_idx(path: Path) -> Tensor:
    """The array in an idx file, plain or compressed by gzip (told by content, not by name).

    Returns uint8, int8, int16 or int32, of the shape that the header states. DataError, in one line
    that names the file, when it cannot be read, is no idx file, or is not exactly as long as its
    header says. The format: LeCun, Cortes & Burges, The MNIST database of handwritten digits, 1998.
    """
    try:
        with open_regular(path) as plain:
            size = os.fstat(plain.fileno()).st_size
            zipped = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            if not zipped:
                return _read(plain, size, path)
            with gzip.open(plain, "rb") as unzipped:
                return _read(cast(BinaryIO, unzipped), size * _GZIP_RATIO, path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged ({error}): fetch it again") from None
    except MemoryError:
        raise DataError(f"{path} does not fit in memory") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None


def _read(file: BinaryIO, limit: int, path: Path) -> Tensor:
    """limit: bytes that the file can hold at most; nothing larger is allocated."""
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES:
        raise DataError(f"{path} is no idx file of whole numbers (it starts with {magic.hex(' ')})")
    if not 1 <= magic[3] <= _DIMENSIONS:
        raise DataError(f"{path} is damaged: its header says {magic[3]} dimensions")
    header = file.read(4 * magic[3])
    if len(header) < 4 * magic[3]:
        raise DataError(f"{path} is truncated: it ends within its header")
    shape = tuple(np.frombuffer(header, ">u4").tolist())
    kind = np.dtype(_TYPES[magic[2]])
    expected = math.prod(shape) * kind.itemsize
    stated = f"its header says {'×'.join(map(str, shape))} values"
    if expected > limit:
        raise DataError(f"{path} is truncated: {stated}, more than it can hold")
    if expected > available_memory() // 2:  # zeros may be packed a thousandfold
        raise DataError(f"{path} does not fit in memory: {stated}")

    content = np.empty(expected, np.uint8)
    view = content.data
    filled = 0
    while filled < expected:
        count = file.readinto(view[filled:])  # type: ignore[attr-defined]
        if not count:
            raise DataError(
                f"{path} is truncated: {stated}, {filled} of {expected} bytes are there"
            )
        filled += count
    # Reading past the end also makes gzip compare its checksum.
    if file.read(1):
        raise DataError(f"{path} is damaged: {stated}, and it goes on after them")
    try:
        values = content.view(kind).reshape(shape)
    except ValueError:  # no values, and sides that no array can have
        raise DataError(f"{path} is damaged: {stated}") from None
    return torch.from_numpy(values.astype(kind.newbyteorder("="), copy=False))
