"""The image files under a folder, whatever lies there."""

from __future__ import annotations

import heapq
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from vaezoo.data.decode import SUFFIXES

IGNORED = frozenset(("__MACOSX", "@eaDir", "$RECYCLE.BIN"))
"""Folders that operating systems leave behind; so is whatever begins with a dot."""


@dataclass(frozen=True, order=True)
class ImageFile:
    """A file whose name says image. name: relative to the folder, with / on every system.

    state: size in bytes, time of modification in ns, mode; what changes when the file does. Zeros
    for a file that is not there, such as a broken link.
    """

    name: str
    state: tuple[int, int, int] = (0, 0, 0)


@dataclass
class ImageTree:
    """images: sorted by name. unreadable: (folder, reason). others: how many files by ending."""

    images: list[ImageFile] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


def find_images(root: Path) -> ImageTree:
    """Look through a folder and everything below. OSError when the folder itself cannot be read.

    Links to files and to folders elsewhere are followed. Each folder is read once, by its real name
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
                    _sort_in(
                        entry, f"{name}/{entry.name}" if name else entry.name, tree, folders, links
                    )
        except OSError as error:
            if not name:
                raise
            tree.unreadable.append((f"{name}/", (error.strerror or str(error)).lower()))
    tree.images.sort()
    tree.unreadable.sort()
    return tree


def _sort_in(
    entry: os.DirEntry[str], name: str, tree: ImageTree, folders: list[str], links: list[str]
) -> None:
    if entry.name.startswith(".") or entry.name in IGNORED:
        return
    try:
        is_folder = entry.is_dir()
    except OSError:  # a link to itself, or into a place that may not be entered
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
