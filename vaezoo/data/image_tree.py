"""The image files below a folder, and the split and class that their folders stand for."""

from __future__ import annotations

import heapq
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from vaezoo.data.decode import SUFFIXES

IGNORED = frozenset(("__MACOSX", "@eaDir", "$RECYCLE.BIN"))
"""Folders that operating systems leave behind. Names that begin with a dot are ignored too."""

Role = Literal["all", "train", "validation", "test"]
"""The split of an image; "all" where the folders do not say."""

ROLES: Mapping[str, Role] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
"""Names of folders, in lower case, that hold a split."""


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


class Placement(NamedTuple):
    """The split and the class of an image, as the folders that it lies in say."""

    role: Role
    class_name: str | None


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


_Paths = dict[int, tuple[str, ...]]
"""The parts of each path from some level on, by the number of the path."""


def assign_placements(names: Sequence[str]) -> list[Placement | None]:
    """Find the split and the class of each image from its path; None for those left out.

    names: paths relative to the root, with /. A folder that holds only one folder is replaced by
    that. A train folder beside a test or validation folder (ROLES, in upper or lower case) makes
    splits; all that lies beside them is left out, because test images must never be trained on.
    Within a split two or more folders make classes, and an image belongs to its class at any depth.
    Images beside the class folders are left out, unless they are the majority: then there are no
    classes, and every image is used.
    """
    paths = {i: tuple(name.split("/")) for i, name in enumerate(names)}
    placements: list[Placement | None] = [None] * len(names)
    parts = _split(paths)
    plain = {role: _classes(part, ()) for role, part in parts.items()}
    # The name of a class in one split is a class in the others too, even if it is the only one.
    known = {name for classes in plain.values() for name in classes.values() if name is not None}
    for role, part in parts.items():
        for i, class_name in _classes(part, known).items():
            placements[i] = Placement(role, class_name)
    return placements


def _split(paths: _Paths) -> dict[Role, _Paths]:
    """The paths below each split's folders, or all of them."""
    inside = paths
    while True:
        folders = _folders(inside)
        roles = {ROLES[name.lower()] for name in folders if name.lower() in ROLES}
        if "train" in roles and len(roles) > 1:
            break
        below = _descend(inside)
        if len(folders) != 1 or 2 * len(below) < len(paths):
            return {"all": paths}
        inside = below
    parts: dict[Role, _Paths] = {}
    for i, path in inside.items():
        role = ROLES.get(path[0].lower()) if len(path) > 1 else None
        if role is not None:
            parts.setdefault(role, {})[i] = path[1:]
    return parts


def _classes(paths: _Paths, known: Collection[str]) -> dict[int, str | None]:
    """The class of each image by its number; None for all without classes, none for left out."""
    inside = paths
    while len(folders := _folders(inside)) == 1 and not folders & set(known):
        inside = _descend(inside)
    classes: dict[int, str | None] = {i: path[0] for i, path in inside.items() if len(path) > 1}
    if 2 * len(classes) < len(paths):
        return dict.fromkeys(paths)
    return classes


def _folders(paths: _Paths) -> set[str]:
    return {path[0] for path in paths.values() if len(path) > 1}


def _descend(paths: _Paths) -> _Paths:
    return {i: path[1:] for i, path in paths.items() if len(path) > 1}
