"""Files of columns: exact in every format, read by their own libraries, refused when damaged."""

from __future__ import annotations

import csv
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from vaezoo.errors import RunError
from vaezoo_results.tables import open_table, read_pieces, write_table

COUNT = 5000


def columns() -> dict[str, Any]:
    draw = np.random.default_rng(0)
    bits = draw.integers(0, 2**32, (COUNT, 2, 3), dtype=np.uint64).astype(np.uint32)
    mean = bits.view(np.float32)
    mean = np.where(np.isfinite(mean), mean, 0).astype(np.float32)
    return {
        "example": np.array([f'a "{i}", b.png' for i in range(COUNT)]),
        "label": np.arange(COUNT) % 7 - 1,
        "mean": mean,
        "elbo": draw.standard_normal(COUNT) * 1e-200,
    }


def in_pieces(found: dict[str, Any], size: int = 333) -> Iterator[dict[str, Any]]:
    for i in range(0, COUNT, size):
        yield {name: values[i : i + size] for name, values in found.items()}


@pytest.mark.parametrize("ending", ["npz", "csv", "parquet", "safetensors"])
def test_values_are_exactly_the_same_when_read_again(ending: str, tmp_path: Path) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    path, found = tmp_path / f"file.{ending}", columns()
    write_table(path, in_pieces(found), COUNT)
    table = open_table(path)
    assert table.count == COUNT
    parts = list(read_pieces(table, ["mean", "label"]))
    mean = np.concatenate([part["mean"] for part in parts]).reshape(COUNT, 2, 3)
    assert mean.dtype == np.float32
    assert (mean == found["mean"]).all()
    assert (np.concatenate([part["label"] for part in parts]) == found["label"]).all()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_other_libraries_read_the_files(tmp_path: Path) -> None:
    found = columns()
    for ending in ("npz", "csv", "safetensors"):
        write_table(tmp_path / f"a.{ending}", in_pieces(found), COUNT)
    with np.load(tmp_path / "a.npz") as arrays:
        assert list(arrays) == list(found)
        assert all((arrays[name] == found[name]).all() for name in found)
    tensors = load_file(tmp_path / "a.safetensors")
    assert tensors.keys() == found.keys() - {"example"}
    assert all((tensors[name] == found[name]).all() for name in tensors)
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["example"] for row in rows] == found["example"].tolist()
    assert [float(row["elbo"]) for row in rows] == found["elbo"].tolist()
    assert [np.float32(row["mean_4"]) for row in rows] == found["mean"][:, 1, 1].tolist()
    write_table(tmp_path / "a.npy", ({"mean": p["mean"]} for p in in_pieces(found)), COUNT)
    assert (np.load(tmp_path / "a.npy") == found["mean"]).all()


@pytest.mark.parametrize("ending", ["npz", "csv", "safetensors"])
def test_memory_does_not_grow(ending: str, tmp_path: Path) -> None:
    piece = {"mean": np.zeros((1000, 50), np.float32)}

    def peak(pieces: int) -> int:
        path = tmp_path / f"{pieces}.{ending}"
        tracemalloc.start()
        write_table(path, (piece for _ in range(pieces)), 1000 * pieces)
        for _ in read_pieces(open_table(path), ["mean"]):
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    few, many = (2, 6) if ending == "csv" else (10, 60)
    peak(1)
    if ending == "csv":  # it reads 4096 rows at once: more than `few` has
        few, many = 5, 10
    assert peak(many) < 1.2 * peak(few) + 100_000


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[dict[str, Any]]:
        yield {"mean": np.zeros((3, 2), np.float32)}
        raise RunError("no more")

    for ending in ("npz", "csv", "safetensors", "npy"):
        with pytest.raises(RunError, match="no more"):
            write_table(tmp_path / f"file.{ending}", broken(), 6)
    assert not list(tmp_path.iterdir())


def test_damaged_files_are_refused_in_one_line(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}, {}], object), allow_pickle=True)
    np.save(tmp_path / "fortran.npy", np.asfortranarray(np.zeros((3, 4))))
    np.savez(tmp_path / "lengths.npz", mean=np.zeros((3, 4)), label=np.zeros(2))
    np.save(tmp_path / "short.npy", np.zeros((9, 4)))
    short = (tmp_path / "short.npy").read_bytes()[:-8]
    (tmp_path / "short.npy").write_bytes(short)
    (tmp_path / "text.csv").write_text("mean_0,mean_1\n1,2\n3,four\n")
    (tmp_path / "order.csv").write_text("mean_1,mean_0\n1,2\n")
    for ending in ("npz", "npy", "safetensors"):
        (tmp_path / f"noise.{ending}").write_bytes(b"\x93NUMPY nonsense")
    said = {
        "objects.npy": "pickle",
        "fortran.npy": "C order",
        "lengths.npz": "different lengths",
        "short.npy": "ends too early",
        "text.csv": "line 3: mean is no number",
        "order.csv": "mean_1 is not where it belongs",
        "missing.npz": "cannot read",
        "file.pt": "give a file that ends in",
        **{f"noise.{ending}": "cannot be read" for ending in ("npz", "npy", "safetensors")},
    }
    for name, text in said.items():
        with pytest.raises(RunError, match=text) as caught:
            list(read_pieces(open_table(tmp_path / name), ["mean"]))
        assert "\n" not in str(caught.value)
