"""MATLAB files: arrays of numbers come out as they were, everything else is refused in bounds."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vaezoo.data.matlab import DamagedError, read_arrays
from vaezoo.plugins.loader import import_file

files = import_file(str(Path(__file__).with_name("matlab_files.py")))

HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<HH", 0x0100, 0x4D49)


def packed(content: bytes) -> bytes:
    content = zlib.compress(content)
    return struct.pack("<II", 15, len(content)) + content


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    shape=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    kind=st.sampled_from(sorted(files.CLASSES)),
    order=st.sampled_from("<>"),
    packing=st.booleans(),
    seed=st.integers(0, 99),
)
def test_what_was_written_comes_back(
    tmp_path: Path, shape: list[int], kind: str, order: str, packing: bool, seed: int
) -> None:
    values = np.random.default_rng(seed).integers(0, 100, shape).astype(kind)
    files.write_mat(tmp_path / "a.mat", {"other": values[:1], "X": values}, order, packing)
    found = read_arrays(tmp_path / "a.mat", ["X", "y"])
    assert list(found) == ["X"]
    assert found["X"].dtype == kind
    assert np.array_equal(found["X"], values)


def test_whole_numbers_stored_small_are_of_the_class_that_was_meant(tmp_path: Path) -> None:
    content = files.array("y", np.array([[1], [10]], np.uint8), kind="f8")
    (tmp_path / "a.mat").write_bytes(HEADER + packed(content))
    found = read_arrays(tmp_path / "a.mat", ["y"])["y"]
    assert found.dtype == np.float64
    assert found.tolist() == [[1], [10]]


@pytest.mark.parametrize("packing", [False, True])
def test_scipy_reads_and_writes_the_same(tmp_path: Path, packing: bool) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    values = {"X": np.arange(2 * 3 * 3 * 4, dtype=np.uint8).reshape(2, 3, 3, 4), "y": np.eye(3)}
    path = tmp_path / "a.mat"
    scipy_io.savemat(path, values, do_compression=packing)
    found = read_arrays(path, values)
    files.write_mat(path, values, packed=packing)
    for name in values:
        assert np.array_equal(found[name], values[name])
        assert np.array_equal(scipy_io.loadmat(path)[name], values[name])


X: Any = np.arange(600, dtype=np.uint8).reshape(10, 10, 6)
WHOLE = files.array("X", X)


def with_sides(*sides: int) -> bytes:
    return WHOLE.replace(struct.pack("<3i", *X.shape), struct.pack("<3i", *sides))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no MATLAB file"),
        (b"x" * 1000, "no MATLAB file"),
        (HEADER + WHOLE[:100], "truncated"),
        (HEADER + packed(WHOLE)[:-20], "truncated"),
        (HEADER + packed(WHOLE[:400]), "X is truncated"),
        (HEADER + packed(WHOLE)[:-3] + b"\0\0\0", "does not unpack"),
        (HEADER + packed(b"\x0e\0\0\0"), "packs something that is no array"),
        (HEADER + struct.pack("<II", 15, 8) + b"no zlib!", "does not unpack"),
        (HEADER + struct.pack("<II", 14, 0xFFFFFFFF), "truncated"),
        # 600 values said, the dimensions of two billion times as many
        (HEADER + packed(with_sides(10, 10, 2**31 - 1)), "dimension"),
        (HEADER + packed(with_sides(10, 10, -6)), "sides below 0"),
        (HEADER + packed(files.element(14, b"\0" * 64)), "no flags"),
    ],
)
def test_what_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(DamagedError, match=said):
        read_arrays(tmp_path / "a.mat", ["X"])


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """A megabyte that says it is of four gigabytes, and is."""
    sides = struct.pack("<4i", 65535, 21845, 3, 1)
    head = files.element(6, struct.pack("<II", 9, 0)) + files.element(5, sides)
    head += files.element(1, b"X") + struct.pack("<II", 2, 65535 * 21845 * 3)
    packer = zlib.compressobj()
    content = packer.compress(struct.pack("<II", 14, 0xFFFFFFF8) + head)
    content += packer.compress(bytes(1 << 26)) + packer.flush()
    (tmp_path / "a.mat").write_bytes(HEADER + struct.pack("<II", 15, len(content)) + content)
    with pytest.raises(DamagedError, match="X is far too large"):
        read_arrays(tmp_path / "a.mat", ["X"])
