"""Writes arrays as MATLAB does, in its files of version 5."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

STORED = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 9}
CLASSES = {"f8": 6, "f4": 7, "i1": 8, "u1": 9, "i2": 10, "u2": 11, "i4": 12, "u4": 13}


def element(kind: int, content: bytes, order: str = "<") -> bytes:
    if len(content) <= 4:  # the small form
        return struct.pack(f"{order}I", len(content) << 16 | kind) + content.ljust(4, b"\0")
    return struct.pack(f"{order}II", kind, len(content)) + content + b"\0" * (-len(content) % 8)


def array(name: str, values: NDArray[Any], order: str = "<", kind: str | None = None) -> bytes:
    """kind: the type that the array says it is of, where that is not the type it is stored as."""
    stored = values.dtype.str[1:]
    parts = [
        element(6, struct.pack(f"{order}II", CLASSES[kind or stored], 0), order),
        element(5, struct.pack(f"{order}{values.ndim}i", *values.shape), order),
        element(1, name.encode(), order),
        element(STORED[stored], values.astype(f"{order}{stored}").tobytes(order="F"), order),
    ]
    return element(14, b"".join(parts), order)


def write_mat(path: Path, arrays: dict[str, Any], order: str = "<", packed: bool = True) -> None:
    content = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(f"{order}HH", 0x0100, 0x4D49)
    for name, values in arrays.items():
        whole = array(name, np.asarray(values), order)
        if packed:
            whole = zlib.compress(whole)
            whole = struct.pack(f"{order}II", 15, len(whole)) + whole
        content += whole
    path.write_bytes(content)
