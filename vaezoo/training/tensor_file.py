"""Tensors as a safetensors file, written in one pass beside training and hashed on the way.

The library's own writer is not used: in the versions that we support it may hold Python's lock
while it writes, and training would wait for the disk. What reads these files is the library.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vaezoo.errors import RunError

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_CHUNK = 1 << 24
"""Bytes between two looks at whether Python wants to do something else."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors and bring them to the disk. Returns the file's sha256, in hexadecimal.

    OSError when the disk does not take them; RunError for a type that the format has no word for.
    """
    # The largest elements first, so that each tensor begins at a multiple of its element.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    digest = hashlib.sha256()
    with path.open("wb", buffering=0) as file:

        def write(data: memoryview) -> None:
            while data:
                done = file.write(data[:_CHUNK])
                digest.update(data[:done])
                data = data[done:]

        write(memoryview(_header(names, tensors)))
        for name in names:
            # A tensor at a time: what lies in another order in memory is put in order by a copy.
            values = tensors[name].detach().cpu().contiguous()
            if values.numel():
                write(values.reshape(-1).view(torch.uint8).numpy().data)
        os.fsync(file.fileno())
    return digest.hexdigest()


def _header(names: list[str], tensors: Mapping[str, Tensor]) -> bytes:
    """The length of the description, and the description, padded to a multiple of 8 bytes."""
    described = {}
    begin = 0
    for name in names:
        tensor = tensors[name]
        if tensor.dtype not in _NAMES:
            raise RunError(f"{name} is {tensor.dtype}, which safetensors has no word for")
        end = begin + tensor.numel() * tensor.element_size()
        described[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
