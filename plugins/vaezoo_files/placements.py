"""The split and the class of each image that its folders stand for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, NamedTuple

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


class Placement(NamedTuple):
    """The split and the class of an image, as the folders that it lies in say."""

    role: Role
    class_name: str | None


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
