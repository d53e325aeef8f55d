"""Arrays in an .npz file as a data set."""

from __future__ import annotations

import hashlib
import itertools
import math
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaezoo.data.array_values import infer_domain
from vaezoo.data.base import BaseDataset, Splits, TensorSplit, random_split
from vaezoo.data.known import SPLIT_SEED, digest
from vaezoo.data.options import NpzOptions
from vaezoo.data.spec import DataSpec, Domain
from vaezoo.errors import DataError, printable
from vaezoo.io import open_regular
from vaezoo.runtime.memory import available_memory

Array = NDArray[Any]

TRAIN = ("images", "x", "data", "imgs", "x_train", "train_images", "arr_0")
TRAIN_LABELS = ("labels", "y", "y_train", "train_labels")
TEST = ("x_test", "test_images")
TEST_LABELS = ("y_test", "test_labels")

_MOST_CHANNELS = 4
"""An axis this short is of channels, a longer one of pixels."""

_MOST_CLASSES = 65_536

_NPY = b"\x93NUMPY"
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_OBJECTS = "it holds Python objects, which are never loaded: store plain numbers"
_PIECE = 1 << 20
"""Bytes that are unpacked at once."""


class NpzDataset(BaseDataset):
    """Arrays that numpy.savez wrote; `root` is the file.

    Examples are in one of the arrays named in TRAIN, with class numbers from 0 (-1: unknown) in one
    of TRAIN_LABELS if there are any; those to test with in TEST and TEST_LABELS, else
    `options.test_fraction` of all are held out at random. Images are [n, H, W], [n, H, W, C] or
    [n, C, H, W] with C at most 4 and sides longer than that; [n, values] is vectors. See
    `infer_domain` for what their values may be. Pickled objects are refused, never loaded.
    """

    options: NpzOptions

    def load(self) -> Splits:
        if self.options.root is None:
            raise DataError("npz needs --root FILE: an .npz file made by numpy.savez")
        path = self.options.root
        found = _read(path)
        examples = {role: _axes(path, *found[role]) for role in ("train", "test") if role in found}
        shapes = {values.shape[1:] for values in examples.values()}
        if len(shapes) > 1:
            sizes = " and ".join("×".join(map(str, shape)) for shape in shapes)
            raise DataError(f"{path}: examples to train on and to test with differ: {sizes}")
        levels = infer_domain({f"{path}: {found[role][0]}": examples[role] for role in examples})
        domain = self._domain(path, levels.domain, levels.tensors[0])
        labels: dict[str, Tensor] = {
            role: _labels(path, *found[f"{role} labels"], len(examples[role]))
            for role in examples
            if f"{role} labels" in found
        }
        classes = max((int(numbers.max()) + 1 for numbers in labels.values()), default=0)
        train, validation, test, how = self._split(levels.tensors, labels)
        counts = f"{len(train):,} to train on, {len(test):,} to test"
        return Splits(
            spec=DataSpec(
                shape=tuple(levels.tensors[0].shape[1:]),
                domain=domain,
                class_names=tuple(map(str, range(classes))),
                num_examples=len(train),
            ),
            train=train,
            validation=validation if len(validation) else test,
            test=test,
            description=f"{counts}, {how}",
            fingerprint=_fingerprint(train, validation, test),
        )

    def read_images(self, paths: Sequence[Path], spec: DataSpec) -> Tensor:
        if spec.domain == "real":
            raise DataError("the values of this data are no levels of grey, as image files have")
        return super().read_images(paths, spec)

    def _domain(self, path: Path, found: Domain, values: Tensor) -> Domain:
        if self.options.binarize != "none" and values.dtype != torch.uint8:
            raise DataError(
                f"{path}: --binarize takes 8-bit levels, or floats that are multiples of 1/255"
            )
        return "binary" if self.options.binarize != "none" else found

    def _split(
        self, tensors: Sequence[Tensor], labels: Mapping[str, Tensor]
    ) -> tuple[TensorSplit, TensorSplit, TensorSplit, str]:
        options = self.options
        count = len(tensors[0])
        if len(tensors) == 2:
            train, test = (
                TensorSplit(values, _known_or_not(labels, role, len(values)))
                for role, values in zip(("train", "test"), tensors, strict=True)
            )
            left, held_out, _ = random_split(count, 0, options.validation, SPLIT_SEED)
            how = "as the file has them"
        else:
            if count < 2:
                raise DataError(
                    f"{options.root} holds one example: it takes two, to train and test"
                )
            testing = min(max(1, round(count * options.test_fraction)), count - 1)
            left, held_out, tested = random_split(
                count, testing, options.validation, options.split_seed
            )
            train = TensorSplit(tensors[0], labels.get("train"))
            test = TensorSplit(train.images, train.labels, tested)
            how = f"at random by seed {options.split_seed}"
        validation = TensorSplit(train.images, train.labels, held_out)
        return TensorSplit(train.images, train.labels, left), validation, test, how


def _read(path: Path) -> dict[str, tuple[str, Array]]:
    """(name, array) by role: train, test, train labels, test labels, as far as they are there."""
    if not path.is_file():
        raise DataError(f"--root {path} is not a file: npz takes an .npz file made by numpy.savez")
    found: dict[str, tuple[str, Array]] = {}
    try:
        with open_regular(path) as file:
            begin = file.read(len(_NPY))
            if begin[:1] == b"\x80":
                raise ValueError(_OBJECTS)
            if begin == _NPY:
                raise DataError(
                    f"{path} is a single array: store it by numpy.savez(FILE, images=...)"
                )
            with zipfile.ZipFile(file) as archive:
                members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
                names = _names(path, members)
                _check_sizes(path, [members[name] for name in names.values()])
                for role, name in names.items():
                    found[role] = name, _array(archive, members[name])
    except DataError:
        raise
    except Exception as error:  # numpy, zipfile and zlib each raise their own on damaged files
        reason = printable(" ".join(str(error).split())[:200]) or type(error).__name__
        raise DataError(f"cannot read {path} as .npz: {reason}") from None
    return found


def _names(path: Path, members: Collection[str]) -> dict[str, str]:
    """The name of the array of each role, as far as it is there."""
    names: dict[str, str] = {}
    for role, known in (
        ("train", TRAIN),
        ("train labels", TRAIN_LABELS),
        ("test", TEST),
        ("test labels", TEST_LABELS),
    ):
        there = [name for name in known if name in members]
        if len(there) > 1:
            raise DataError(f"{path} holds both {there[0]} and {there[1]}: keep one")
        if there:
            names[role] = there[0]
    if "train" not in names:
        shown = ", ".join(printable(name[:40]) for name in itertools.islice(members, 10))
        more = ", ..." if len(members) > 10 else ""
        raise DataError(
            f"{path} holds {shown + more or 'nothing'}: the array of the examples must be named "
            f"one of {', '.join(TRAIN)}"
        )
    return names


def _check_sizes(path: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    """DataError when the arrays do not fit in memory, before any is unpacked: zip reads no more
    of a member than it is said to hold."""
    size = sum(member.file_size for member in members)
    if size > available_memory() // 2:
        raise DataError(f"{path} does not fit in memory: its arrays have {size / 1e9:,.1f} GB")


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    """An array of numbers. ValueError for Python objects, and for one that is not as large as its
    header says."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = _HEADERS.get(version)
        if read is None:
            raise ValueError(f"its format {version} is unknown")
        shape, in_fortrans_order, kind = read(file)
        if kind.hasobject:
            raise ValueError(_OBJECTS)
        size = math.prod(shape) * kind.itemsize
        if kind.itemsize == 0 or any(side < 0 for side in shape) or size > member.file_size:
            raise ValueError(f"its header says {size:,} bytes, where there are less")
        values: Array = np.empty(size, np.uint8)
        done = 0
        while done < size:
            piece = file.read(min(size - done, _PIECE))
            if not piece:
                raise ValueError("it is truncated")
            values[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
            done += len(piece)
        file.read(1)  # past the end the checksum is compared
    return values.view(kind).reshape(shape, order="F" if in_fortrans_order else "C")


def _axes(path: Path, name: str, values: Array) -> Array:
    """Examples as [n, C, H, W] or [n, values]."""
    shape = "×".join(map(str, values.shape)) or "one number"
    if values.ndim not in (2, 3, 4):
        raise DataError(
            f"{path}: {name} is {shape}: images are [n, H, W], [n, H, W, C] or [n, C, H, W], "
            "vectors [n, values]"
        )
    if not values.size:
        raise DataError(f"{path}: {name} is empty ({shape})")
    if values.ndim == 2:
        return values
    if values.ndim == 3:
        return values[:, None]
    first, last = (values.shape[axis] <= _MOST_CHANNELS for axis in (1, 3))
    if first == last:
        which = "either" if first else "neither"
        raise DataError(
            f"{path}: {name} is {shape}, where {which} the second or the last axis could be the "
            f"channels: only one of them may be {_MOST_CHANNELS} or less"
        )
    return values if first else values.transpose(0, 3, 1, 2)


def _labels(path: Path, name: str, values: Array, count: int) -> Tensor:
    """Class numbers, int64 [n]. values: whole numbers [n] or [n, 1]."""
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "uib":
        raise DataError(
            f"{path}: {name} must be class numbers [n], whole, not {values.dtype} of "
            f"{'×'.join(map(str, values.shape))}"
        )
    if len(values) != count:
        raise DataError(f"{path}: {count:,} examples have {len(values):,} {name}")
    low, high = int(values.min()), int(values.max())
    if low < -1 or high >= _MOST_CLASSES:
        raise DataError(
            f"{path}: {name} go from {low} to {high}: class numbers go from 0 (-1: unknown) to "
            f"{_MOST_CLASSES - 1}"
        )
    return torch.from_numpy(values.astype(np.int64))


def _known_or_not(labels: Mapping[str, Tensor], role: str, count: int) -> Tensor | None:
    """The labels of a role; unknown ones where only the other role has labels."""
    return labels.get(role, torch.full((count,), -1)) if labels else None


def _fingerprint(*splits: TensorSplit) -> str:
    known = hashlib.sha256()
    for split in splits:
        known.update(digest(split.images, split.labels))
        index = b"" if split.index is None else split.index.numpy().astype("<i8").tobytes()
        known.update(len(index).to_bytes(8, "little") + index)
    return known.hexdigest()
