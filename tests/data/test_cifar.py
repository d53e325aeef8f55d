"""CIFAR-10 in its binary and its Python layout; pickles are read and never run."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vaezoo.data.cifar import Cifar10Dataset
from vaezoo.data.options import KnownOptions
from vaezoo.data.pickled import Call, Name, NotPlain, describe_pickle
from vaezoo.errors import DataError

STEMS = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
EACH = 3


def batch(number: int) -> tuple[NDArray[np.uint8], list[int]]:
    generator = np.random.default_rng(number)
    levels = generator.integers(0, 256, (EACH, 3072), dtype=np.uint8)
    return levels, generator.integers(0, 10, EACH).tolist()


def binary(levels: NDArray[np.uint8], labels: list[int]) -> bytes:
    return b"".join(
        bytes([label]) + row.tobytes() for row, label in zip(levels, labels, strict=True)
    )


def short(text: bytes) -> bytes:
    return b"U" + bytes([len(text)]) + text


def python_2(levels: NDArray[np.uint8], labels: list[int]) -> bytes:
    """As cPickle of Python 2 wrote the official files, with protocol 2, memo entries and all."""
    content = levels.tobytes()
    dtype = b"cnumpy\ndtype\nq\x03" + short(b"u1") + b"K\0K\1\x87R(K\3" + short(b"|")
    dtype += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\0\x85"
    array += short(b"b") + b"\x87R(K\1M" + struct.pack("<H", len(levels)) + b"M\0\x0c\x86"
    array += dtype + b"\x89T" + struct.pack("<i", len(content)) + content + b"tb"
    numbers = b"]q\x04(" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    names = b"](" + b"".join(short(b"leptodactylus_s_000004.png") for _ in labels) + b"e"
    entries = short(b"data") + array + short(b"labels") + numbers
    entries += short(b"batch_label") + short(b"testing batch 1 of 1") + short(b"filenames") + names
    return b"\x80\x02}q\x05(" + entries + b"u."


def python_3(levels: NDArray[np.uint8], labels: list[int], protocol: int = 2) -> bytes:
    return pickle.dumps({"data": levels, "labels": labels}, protocol=protocol)


def write(folder: Path, make: Any, suffix: str = "") -> None:
    folder.mkdir(parents=True)
    for number, stem in enumerate(STEMS):
        (folder / f"{stem}{suffix}").write_bytes(make(*batch(number)))


def test_the_pickle_written_here_is_one() -> None:
    """Python's own reader finds in it what this test means it to hold."""
    levels, labels = batch(0)
    loaded = pickle.loads(python_2(levels, labels), encoding="latin1")
    assert np.array_equal(loaded["data"], levels)
    assert loaded["labels"] == labels


@pytest.mark.parametrize(
    ("folder", "make", "suffix"),
    [
        ("cifar-10-batches-bin", binary, ".bin"),
        (".", binary, ".bin"),
        ("cifar-10-batches-py", python_2, ""),
        ("cifar10/cifar-10-batches-py", python_3, ""),
        ("cifar-10-batches-py", lambda *given: python_3(*given, protocol=4), ""),
    ],
)
def test_images_and_labels_come_back(tmp_path: Path, folder: str, make: Any, suffix: str) -> None:
    write(tmp_path / "root" / folder, make, suffix)
    splits = Cifar10Dataset(KnownOptions(root=tmp_path / "root")).load()
    assert splits.spec.shape == (3, 32, 32)
    assert splits.spec.class_names[3] == "cat"
    images, labels = splits.train.get_batch(torch.arange(len(splits.train)))
    expected = np.concatenate([batch(number)[0] for number in range(5)])
    assert np.array_equal(images.reshape(-1, 3072).numpy(), expected)
    assert labels is not None
    assert labels.tolist() == [label for number in range(5) for label in batch(number)[1]]
    images, _ = splits.test.get_batch(torch.arange(len(splits.test)))
    assert np.array_equal(images.reshape(-1, 3072).numpy(), batch(5)[0])


class Malice:
    """Makes a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("key", ["data", "labels", "extra", None])
def test_malice_does_nothing(tmp_path: Path, protocol: int, key: str | None) -> None:
    sign = tmp_path / "sign"
    root = tmp_path / "root"
    write(root / "cifar-10-batches-py", python_2)
    levels, labels = batch(0)
    content: Any = {"data": levels, "labels": labels}
    if key is None:
        content = Malice(sign)
    else:
        content[key] = Malice(sign)
    evil = pickle.dumps(content, protocol=protocol)
    (root / "cifar-10-batches-py" / STEMS[0]).write_bytes(evil)
    try:
        Cifar10Dataset(KnownOptions(root=root)).load()
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017 (an extra entry is no error, and does nothing)
    assert not sign.exists()
    pickle.loads(evil)
    assert sign.exists()  # it would have worked


def test_the_description_names_what_would_have_run() -> None:
    described = describe_pickle(pickle.dumps({"a": Malice(Path("sign"))}, protocol=2))
    assert described == {"a": Call(Name("posix mkdir"), ("sign",))}


@pytest.mark.parametrize("value", [{"a": [1, 2, (3, "b")], "c": b"d", "e": None}, [True, 1.5, ()]])
@pytest.mark.parametrize("protocol", [1, 3, 4, 5])
def test_plain_values_are_described_by_themselves(value: Any, protocol: int) -> None:
    if protocol == 1 and isinstance(value, dict):
        value = {"a": value["a"]}  # bytes were a call then
    assert describe_pickle(pickle.dumps(value, protocol=protocol)) == value


@pytest.mark.parametrize("cut", [0, 1, 10, 200, 5000, -1])
def test_a_part_of_a_pickle_is_refused(cut: int) -> None:
    with pytest.raises(NotPlain):
        describe_pickle(python_2(*batch(0))[:cut])


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"R.", b"t.", b"h\0.", b"]]s.", b"Ncos\nx\nb."]
)
def test_nonsense_is_refused(content: bytes) -> None:
    with pytest.raises(NotPlain):
        describe_pickle(content)


def test_wrong_arrays_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root / "cifar-10-batches-py", python_2)
    levels, labels = batch(0)
    for wrong in (
        {"data": levels.astype(np.int16), "labels": labels},
        {"data": levels[:, :3000], "labels": labels},
        {"data": np.asfortranarray(levels), "labels": labels},
        {"data": levels, "labels": labels[:-1]},
        {"data": levels, "labels": [[]] * EACH},
        {"data": levels, "labels": [10**30] * EACH},
        {"data": [1, 2, 3], "labels": labels},
        {"fine_labels": labels},
        [levels, labels],
    ):
        (root / "cifar-10-batches-py" / STEMS[2]).write_bytes(pickle.dumps(wrong, protocol=2))
        with pytest.raises(DataError, match=r"data_batch_3 is no file of CIFAR-10") as caught:
            Cifar10Dataset(KnownOptions(root=root)).load()
        assert "\n" not in str(caught.value)


def test_a_binary_file_cut_off_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "cifar-10-batches-bin", binary, ".bin")
    path = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    for content in (path.read_bytes()[:-1], b""):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"test_batch\.bin is damaged"):
            Cifar10Dataset(KnownOptions(root=tmp_path)).load()
