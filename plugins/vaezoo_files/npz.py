"""The data set `npz`: arrays in an .npz or .npy file."""

from __future__ import annotations

import itertools
import os
import zipfile
from collections.abc import Collection
from pathlib import Path

from numpy.lib.format import MAGIC_PREFIX, read_array

from vaezoo import Splits
from vaezoo.errors import DataError, printable
from vaezoo.io import open_regular
from vaezoo.runtime.memory import available_memory

from .conversion import Array, ArrayDataset, split_arrays
from .options import NpzOptions

NAMES = {
    "train": ("images", "x", "data", "imgs", "x_train", "train_images", "arr_0"),
    "train labels": ("labels", "y", "y_train", "train_labels"),
    "train factors": ("factors", "train_factors", "latents_classes"),
    "test": ("x_test", "test_images"),
    "test labels": ("y_test", "test_labels"),
    "test factors": ("test_factors",),
    "factor names": ("factor_names",),
}
"""The names that the array of each role may have."""

_OBJECTS = "it holds Python objects, which are never loaded: store plain numbers"


class NpzDataset(ArrayDataset):
    """Arrays that numpy.savez wrote, or one that numpy.save wrote; `root` is the file.

    NAMES has the names of the arrays: the examples, their classes (numbers from 0, -1: unknown, or
    texts), their factors of variation, and the same for testing. The numbers or texts that occur
    are the names of the classes. Without test arrays `options.test_fraction` of the examples are
    held out at random. Vectors are [n, values]; signals have one axis more, images two, volumes
    three: `options.layout` says where the channels are. `infer_domain` says which values are
    allowed. Pickled objects are never loaded.
    """

    options: NpzOptions

    def load(self) -> Splits:
        if self.options.root is None:
            raise DataError("npz needs --root FILE: an .npz file made by numpy.savez")
        return split_arrays(_read(self.options.root), self.options, f"{self.options.root}: ")


def _read(path: Path) -> dict[str, tuple[str, Array]]:
    """Read the name and the array of each role that the file has."""
    if not path.is_file():
        raise DataError(f"--root {path} is not a file: npz takes an .npz file made by numpy.savez")
    found: dict[str, tuple[str, Array]] = {}
    try:
        with open_regular(path) as file:
            begin = file.read(len(MAGIC_PREFIX))
            if begin[:1] == b"\x80":  # a pickle
                raise ValueError(_OBJECTS)
            if begin == MAGIC_PREFIX:
                _check_size(path, os.fstat(file.fileno()).st_size)
                file.seek(0)
                return {"train": ("the array", read_array(file, allow_pickle=False))}
            with zipfile.ZipFile(file) as archive:
                members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
                names = _names(path, members)
                size = sum(members[name].file_size for name in names.values())
                # zipfile reads no more of a member than its directory says.
                _check_size(path, size)
                for role, name in names.items():
                    with archive.open(members[name]) as member:
                        found[role] = name, read_array(member, allow_pickle=False)
                        member.read(1)  # at the end of a member its checksum is compared
    except DataError:
        raise
    except Exception as error:  # numpy, zipfile and zlib raise errors of any kind for damaged files
        reason = printable(" ".join(str(error).split())[:200]) or type(error).__name__
        if "allow_pickle" in reason:
            reason = _OBJECTS
        raise DataError(f"cannot read {path} as .npz: {reason}") from None
    return found


def _check_size(path: Path, size: int) -> None:
    if size > available_memory() // 2:
        raise DataError(f"{path} does not fit in memory: its arrays have {size / 1e9:,.1f} GB")


def _names(path: Path, members: Collection[str]) -> dict[str, str]:
    """Find the name of the array of each role that the file has."""
    names: dict[str, str] = {}
    for role, known in NAMES.items():
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
            f"one of {', '.join(NAMES['train'])}"
        )
    return names
