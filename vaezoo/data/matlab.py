"""Arrays of numbers in MATLAB's files of version 5, and nothing else that those can hold.

The format: MathWorks, MAT-File Format, chapter 1 (level 5). A file is a header and elements; an
element is a tag (kind, bytes) and its content, and an array is an element that holds four: flags,
dimensions, name, values. Most are packed by zlib, each by itself.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaezoo.io import read_regular

_LARGEST_FILE = 1 << 29
_LARGEST_ARRAY = 1 << 30
_MOST_ELEMENTS = 1000
_HEADER = 128
_MATRIX, _PACKED = 14, 15
_HEAD = 4096
"""Bytes that the flags, dimensions and name of an array fit in."""

_STORED = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
"""Types of stored values."""

_CLASSES = {
    **{6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4"},
    **{14: "i8", 15: "u8"},
}
"""Types of arrays of numbers. Whole numbers in one of floats are stored as small as they can be."""


class DamagedError(ValueError):
    """A file that is none of MATLAB's, or has not what its tags say."""


def read_arrays(path: Path, names: Collection[str]) -> dict[str, NDArray[Any]]:
    """The arrays of these names that a file holds, in Fortran's order as MATLAB has them.

    DamagedError when the file is not sound as far as it is read. OSError when it cannot be read,
    or is far larger than such files are.
    """
    content = read_regular(path, _LARGEST_FILE)
    if len(content) < _HEADER or content[126:128] not in (b"IM", b"MI"):
        raise DamagedError("it is no MATLAB file of version 5")
    order = "<" if content[126:128] == b"IM" else ">"
    found: dict[str, NDArray[Any]] = {}
    try:
        for kind, start, size in _elements(content, order):
            if kind not in (_MATRIX, _PACKED):
                continue
            array = _read_array(memoryview(content)[start : start + size], kind == _PACKED, order)
            if array.name in names:
                found[array.name] = array.values()
    except zlib.error as error:
        raise DamagedError(f"it does not unpack: {error}") from None
    return found


def _elements(content: bytes, order: str) -> Iterator[tuple[int, int, int]]:
    """(kind, start, bytes) of each element of the file."""
    place = _HEADER
    for _ in range(_MOST_ELEMENTS):
        if place + 8 > len(content):
            return
        kind, size = _numbers(content, place, order)
        place += 8
        if size > len(content) - place:
            raise DamagedError("it is truncated")
        yield kind, place, size
        place += size if kind == _PACKED else size + -size % 8


class _Tag(NamedTuple):
    kind: int
    start: int
    size: int
    end: int


class _Array:
    """An array whose values are not read yet."""

    def __init__(self, head: bytes, rest: zlib._Decompress | None, order: str) -> None:
        flags = self._tag(head, 0, order)
        if flags.kind != 6 or flags.size != 8:
            raise DamagedError("an array of it has no flags")
        self.flags, _ = _numbers(head, flags.start, order)
        sides = self._tag(head, flags.end, order)
        if sides.kind != 5 or sides.size % 4 or not 8 <= sides.size <= 128 or sides.end > len(head):
            raise DamagedError("an array of it has no dimensions")
        self.shape = tuple(np.frombuffer(head, f"{order}i4", sides.size // 4, sides.start).tolist())
        name = self._tag(head, sides.end, order)
        self.name = head[name.start : name.start + name.size].decode("ascii", "replace")
        self.head, self.rest, self.order, self.begin = head, rest, order, name.end

    def values(self) -> NDArray[Any]:
        stored = self._tag(self.head, self.begin, self.order)
        kind, target = _STORED.get(stored.kind), _CLASSES.get(self.flags & 0xFF)
        if kind is None or target is None or self.flags & 0x800:
            raise DamagedError(f"{self.name} is no array of real numbers")
        if any(side < 0 for side in self.shape):
            raise DamagedError(f"{self.name} has sides below 0")
        if stored.size != math.prod(self.shape) * np.dtype(kind).itemsize:
            raise DamagedError(f"{self.name} has not as many values as its dimensions say")
        if stored.size > _LARGEST_ARRAY:
            raise DamagedError(f"{self.name} is far too large")
        content = self.head[stored.start : stored.start + stored.size]
        if self.rest is not None and len(content) < stored.size:
            missing = stored.size - len(content)
            content += self.rest.decompress(self.rest.unconsumed_tail, missing)
        if self.rest is not None:
            self.rest.decompress(self.rest.unconsumed_tail, 8)  # filling, and then the checksum
            if not self.rest.eof:
                raise DamagedError(f"{self.name} is truncated, or followed by something else")
        if len(content) < stored.size:
            raise DamagedError(f"{self.name} is truncated")
        values = np.frombuffer(content, f"{self.order}{kind}").reshape(self.shape, order="F")
        return values.astype(target, copy=False)

    @staticmethod
    def _tag(head: bytes, place: int, order: str) -> _Tag:
        kind, size = _numbers(head, place, order)
        if kind >> 16:  # a small one: both in four bytes, and the content in the next four
            return _Tag(kind & 0xFFFF, place + 4, kind >> 16, place + 8)
        return _Tag(kind, place + 8, size, place + 8 + size + -size % 8)


def _read_array(content: memoryview, packed: bool, order: str) -> _Array:
    if not packed:
        return _Array(bytes(content), None, order)
    unpacker = zlib.decompressobj()
    head = unpacker.decompress(content, _HEAD)
    if len(head) < 8 or _numbers(head, 0, order)[0] != _MATRIX:
        raise DamagedError("it packs something that is no array")
    return _Array(head[8:], unpacker, order)


def _numbers(content: bytes, place: int, order: str) -> tuple[int, int]:
    """Two numbers of four bytes."""
    if place + 8 > len(content):
        raise DamagedError("it is truncated")
    first, second = struct.unpack_from(f"{order}II", content, place)
    return first, second
