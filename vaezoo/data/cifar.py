"""CIFAR-10, from its binary files or from those made for Python, which are never unpickled."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vaezoo.data.known import Examples, KnownDataset
from vaezoo.data.pickled import Call, Name, NotPlain, describe_pickle
from vaezoo.errors import DataError
from vaezoo.io import read_regular

_SHAPE = (3, 32, 32)
_VALUES = 3 * 32 * 32
_LARGEST = 1 << 28
"""Bytes; an official file has 31 MB."""


class Cifar10Dataset(KnownDataset):
    """60,000 photographs in ten classes, 32×32 colour. Krizhevsky 2009, Learning Multiple Layers
    of Features from Tiny Images (technical report, University of Toronto)."""

    name = "cifar10"
    folders = tuple(
        above + folder
        for above in ("", "cifar10/", "CIFAR10/")
        for folder in ("cifar-10-batches-bin", "cifar-10-batches-py")
    )

    def class_names(self) -> tuple[str, ...]:
        return (
            *("airplane", "automobile", "bird", "cat", "deer"),
            *("dog", "frog", "horse", "ship", "truck"),
        )

    def files(self) -> Sequence[Sequence[str]]:
        stems = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
        return [(f"{stem}.bin", stem) for stem in stems]

    def read(self, files: Sequence[Path]) -> tuple[Examples, Examples]:
        parts = [_read_binary(path) if path.suffix == ".bin" else _read_py(path) for path in files]
        images = torch.cat([torch.from_numpy(images) for images, _ in parts[:-1]])
        labels = torch.cat([torch.from_numpy(labels) for _, labels in parts[:-1]])
        test_images, test_labels = map(torch.from_numpy, parts[-1])
        return Examples(images, labels), Examples(test_images, test_labels)

    def fetch(self, folder: Path) -> None:
        from torchvision.datasets import CIFAR10
        from torchvision.datasets.utils import download_and_extract_archive

        # Not CIFAR10(download=True), which would go on to unpickle what it has fetched.
        download_and_extract_archive(
            CIFAR10.url, str(folder), filename=CIFAR10.filename, md5=CIFAR10.tgz_md5
        )
        (folder / CIFAR10.filename).unlink()


def _content(path: Path) -> bytes:
    try:
        return read_regular(path, _LARGEST)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise DataError(f"{path} is far too large for a file of CIFAR-10") from None
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None


def _read_binary(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Records of one label and 3 × 32 × 32 levels: uint8 [n, 3, 32, 32] and int64 [n]."""
    content = _content(path)
    if not content or len(content) % (1 + _VALUES):
        raise DataError(
            f"{path} is damaged: {len(content)} bytes are no whole number of images of "
            f"{1 + _VALUES} bytes; fetch it again"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, 1 + _VALUES)
    return records[:, 1:].reshape(-1, *_SHAPE).copy(), records[:, 0].astype(np.int64)


def _read_py(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The array `data` and the list `labels` of a pickled dictionary, as in _read_binary."""
    content = _content(path)
    try:
        described = describe_pickle(content)
        if not isinstance(described, dict):
            raise NotPlain("it does not hold a dictionary")
        entries = {_text(key): value for key, value in described.items()}
        levels = _levels(entries.get("data"))
        labels = entries.get("labels")
        if not isinstance(labels, list) or not all(type(label) is int for label in labels):
            raise NotPlain("it has no list of whole numbers named labels")
        if len(levels) != len(labels):
            raise NotPlain(f"{len(levels)} images have {len(labels)} labels")
        numbers = np.array(labels, np.int64)
    except (NotPlain, OverflowError) as error:
        raise DataError(
            f"{path} is no file of CIFAR-10, or damaged ({error}): fetch it again"
        ) from None
    return levels, numbers


def _levels(value: Any) -> NDArray[np.uint8]:
    """The 8-bit values of a pickled array [n, 3072], as [n, 3, 32, 32]: see ndarray.__reduce__."""
    if not isinstance(value, Call) or not _is(value.function, "multiarray _reconstruct"):
        raise NotPlain("it has no array named data")
    # (version, shape, dtype, whether in Fortran's order, content)
    state = value.state
    if not isinstance(state, tuple) or len(state) != 5:
        raise NotPlain("its array has no content")
    _, shape, kind, fortran, content = state
    if (
        not isinstance(kind, Call)
        or not _is(kind.function, "numpy dtype")
        or not isinstance(kind.arguments, tuple)
        or [_text(argument) for argument in kind.arguments[:1]] not in (["u1"], ["|u1"])
        or fortran
    ):
        raise NotPlain("its array is not of 8-bit values in C's order")
    content = _bytes(content)
    if (
        not isinstance(shape, tuple)
        or [type(side) for side in shape] != [int, int]
        or shape[1] != _VALUES
        or not content
    ):
        raise NotPlain(f"its array is not [images, {_VALUES}]")
    if len(content) != shape[0] * _VALUES:
        raise NotPlain(f"its array has {len(content)} bytes, not {shape[0]} × {_VALUES}")
    return np.frombuffer(content, np.uint8).reshape(-1, *_SHAPE).copy()


def _bytes(value: Any) -> bytes:
    """Python 2 wrote bytes as a string; Python 3, where it keeps to protocol 2, as encoded text."""
    if isinstance(value, Call) and _is(value.function, "_codecs encode"):
        value = value.arguments[0] if isinstance(value.arguments, tuple) else None
    if isinstance(value, str):
        try:
            return value.encode("latin-1")
        except UnicodeEncodeError:
            raise NotPlain("its array is text") from None
    return value if isinstance(value, bytes) else b""


def _text(value: Any) -> Any:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _is(value: Any, name: str) -> bool:
    """Whether this stands for an import of that name; numpy has moved its modules over time."""
    return isinstance(value, Name) and (value.text == name or value.text.endswith(f".{name}"))
