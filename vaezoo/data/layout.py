"""What the folders that images lie in say about splits and classes. No files are touched here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Role = Literal["all", "train", "validation", "test"]

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

_Paths = dict[int, tuple[str, ...]]
"""The parts of each path from some level on, by the number of the path."""


@dataclass(frozen=True)
class Place:
    """Where an image belongs. role "all": the folders do not say in which split."""

    role: Role
    class_name: str | None


def arrange(names: Sequence[str]) -> list[Place | None]:
    """The place of each image by its path, relative and with /; None for those left out.

    Folders that hold nothing but one folder are passed through. A train folder beside a test or
    validation folder (any of ROLES, in any case) makes splits, and what lies beside them is left
    out, however much it is: test images must never be trained on.
    Within each split two or more folders make classes, and an image counts to its class however
    deep it lies. Images beside the class folders are left out, unless they are the greater part:
    then there are no classes, and every image counts.
    """
    paths = {i: tuple(name.split("/")) for i, name in enumerate(names)}
    places: list[Place | None] = [None] * len(names)
    parts = _split(paths)
    plain = {role: _classes(part, ()) for role, part in parts.items()}
    # A class that one split shows is a class in another that has nothing else.
    known = {name for classes in plain.values() for name in classes.values() if name is not None}
    for role, part in parts.items():
        for i, class_name in _classes(part, known).items():
            places[i] = Place(role, class_name)
    return places


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
