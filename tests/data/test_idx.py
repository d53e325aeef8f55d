"""idx files: what was written comes back, and nothing else is taken for it."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vaezoo.data.idx import read_idx
from vaezoo.errors import DataError

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C}


def idx_bytes(values: NDArray[np.generic]) -> bytes:
    code = CODES[values.dtype.str[1:]]
    header = struct.pack(f">HBB{values.ndim}I", 0, code, values.ndim, *values.shape)
    return header + values.astype(values.dtype.newbyteorder(">")).tobytes()


@st.composite
def arrays(draw: st.DrawFn) -> NDArray[np.generic]:
    shape = draw(st.lists(st.integers(0, 5), min_size=1, max_size=4))
    kind = draw(st.sampled_from(sorted(CODES)))
    seed = draw(st.integers(0, 2**32 - 1))
    limits = np.iinfo(kind)
    generator = np.random.default_rng(seed)
    return generator.integers(limits.min, limits.max, shape, dtype=kind, endpoint=True)


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(values=arrays(), zipped=st.booleans())
def test_what_was_written_comes_back(
    tmp_path: Path, values: NDArray[np.generic], zipped: bool
) -> None:
    path = tmp_path / "file"
    content = idx_bytes(values)
    path.write_bytes(gzip.compress(content) if zipped else content)
    read = read_idx(path)
    assert read.dtype == torch.from_numpy(values).dtype
    assert read.shape == values.shape
    assert np.array_equal(read.numpy(), values)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cut=st.integers(0, 10_000), zipped=st.booleans())
def test_no_part_of_a_file_is_taken_for_it(tmp_path: Path, cut: int, zipped: bool) -> None:
    values = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype="u1")
    content = gzip.compress(idx_bytes(values)) if zipped else idx_bytes(values)
    path = tmp_path / "cut-idx3-ubyte"
    path.write_bytes(content[: cut % len(content)])
    with pytest.raises(DataError) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_file_that_is_too_long(tmp_path: Path, zipped: bool) -> None:
    content = idx_bytes(np.zeros((2, 3), "u1")) + b"x"
    path = tmp_path / "long"
    path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(DataError, match="goes on"):
        read_idx(path)


def test_a_flipped_bit_in_a_gz_is_noticed(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(idx_bytes(np.arange(250, dtype="u1")), compresslevel=0))
    content[-60] ^= 1  # stored, so inflating succeeds: only the checksum can tell
    path = tmp_path / "flipped.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        read_idx(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no idx file"),
        (b"\x89PNG\r\n", "no idx file"),
        (b"\0\0\x0d\x01" + struct.pack(">If", 1, 0.5), "no idx file"),  # floats
        (b"\0\0\x08\x00", "0 dimensions"),
        (b"\0\0\x08\xff" + b"\0" * 1020, "255 dimensions"),
        (b"\0\0\x08\x03\0\0", "within its header"),
        # 2^96 values: refused before anything of that size is allocated
        (b"\0\0\x08\x03" + b"\xff" * 12, "more than it can hold"),
        (gzip.compress(b"\0\0\x08\x03" + b"\xff" * 12, mtime=0), "more than it can hold"),
    ],
)
def test_what_is_no_idx_file(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_idx(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*nothing: No such file"):
        read_idx(tmp_path / "nothing")
    with pytest.raises(DataError, match="cannot read"):
        read_idx(tmp_path)
