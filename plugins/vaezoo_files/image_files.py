"""The image files below a folder, their decoded images in the cache, and their splits."""

from __future__ import annotations

import hashlib
import heapq
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from vaezoo.data.base import random_split
from vaezoo.data.decode import SUFFIXES, VERSION, Append, decode_all
from vaezoo.data.options import DecodeOptions

from .cache import CachedImages, cached_images

IGNORED = frozenset(("__MACOSX", "@eaDir", "$RECYCLE.BIN"))
"""Folders that operating systems leave behind. Names that begin with a dot are ignored too."""


@dataclass(frozen=True, order=True)
class ImageFile:
    """A file whose name is that of an image.

    name: relative to the folder, with / on every system. state: size in bytes, time of modification
    in ns, mode: what changes when the file does; zeros for a file that is not there, such as a
    broken link.
    """

    name: str
    state: tuple[int, int, int] = (0, 0, 0)


@dataclass
class ImageTree:
    """images: sorted by name. unreadable: (folder, reason). others: numbers of files by suffix."""

    images: list[ImageFile] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


class SplitIndices(NamedTuple):
    """Positions of the images of each split, int64 [n], and in words how they were chosen."""

    train: Tensor
    validation: Tensor
    test: Tensor
    description: str


def find_images(root: Path) -> ImageTree:
    """Find the image files in a folder and below it. OSError if the folder cannot be read.

    Links to files and to other folders are followed. Each folder is read once, by its real name
    rather than a link, so that loops end; a link to a folder above the root is not followed.
    """
    tree = ImageTree()
    seen = {_identity(folder) for folder in Path(os.path.realpath(root)).parents}
    folders, links = [""], list[str]()
    while folders or links:
        name = folders.pop() if folders else heapq.heappop(links)
        try:
            identity = _identity(root / name)
            if identity in seen:
                continue
            seen.add(identity)
            with os.scandir(root / name) as entries:
                for entry in entries:
                    path = f"{name}/{entry.name}" if name else entry.name
                    _add_entry(entry, path, tree, folders, links)
        except OSError as error:
            if not name:
                raise
            tree.unreadable.append((f"{name}/", (error.strerror or str(error)).lower()))
    tree.images.sort()
    tree.unreadable.sort()
    return tree


def _add_entry(
    entry: os.DirEntry[str], name: str, tree: ImageTree, folders: list[str], links: list[str]
) -> None:
    if entry.name.startswith(".") or entry.name in IGNORED:
        return
    try:
        is_folder = entry.is_dir()
    except OSError:  # a link to itself, or into a folder that may not be read
        is_folder = False
    if is_folder:
        if entry.is_symlink():
            heapq.heappush(links, name)
        else:
            folders.append(name)
        return
    suffix = os.path.splitext(entry.name)[1].lower()
    if suffix not in SUFFIXES:
        tree.others[suffix or "unnamed kind"] += 1
        return
    try:
        status = entry.stat()
        state = (status.st_size, status.st_mtime_ns, status.st_mode)
    except OSError:
        state = (0, 0, 0)  # decoding it says what is wrong
    tree.images.append(ImageFile(name, state))


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def cached_files(
    name: str,
    root: Path,
    images: Sequence[ImageFile],
    shape: tuple[int, int, int],
    options: DecodeOptions,
    check: Callable[[list[tuple[int, str]]], object],
) -> CachedImages:
    """Decode image files, or map them if the same files were decoded in the same way before.

    name: of the data set. check: takes the (position, reason) of files that cannot be read, which
    `info["unreadable"]` keeps; it raises if they are too many, and then nothing is stored.
    """
    how = {name: getattr(options, name) for name in DecodeOptions.model_fields}
    # Not where the folder lies: a copy that was moved is not decoded again.
    key = hashlib.sha256(json.dumps([VERSION, how], sort_keys=True).encode())
    for image in images:
        key.update(json.dumps([image.name, *image.state]).encode())

    def build(append: Append) -> dict[str, Any]:
        paths = [root / image.name for image in images]
        unreadable, animated = decode_all(paths, shape, options, append)
        check(unreadable)
        return {"unreadable": unreadable, "animated": animated}

    return cached_images(f"{name} {key.hexdigest()}", shape, len(images), build)


def hold_out_validation(splits: SplitIndices, count: int, seed: int) -> SplitIndices:
    """The splits with `count` training examples held out for validation, where that is not 0."""
    if not count:
        return splits
    left, held_out, _ = random_split(len(splits.train), 0, count, seed)
    description = f"{splits.description}; {count:,} held out of training by seed {seed}"
    return SplitIndices(splits.train[left], splits.train[held_out], splits.test, description)
