"""What commands that write a picture ask of its name."""

from __future__ import annotations

import os
from pathlib import Path

from vaezoo.errors import RunError

STILL = (".png",)
MOVING = (".png", ".gif", ".webp")
"""What a file's name ends in: of pictures that stand still, and of those that may move too."""


def check_picture(path: Path, overwrite: bool, endings: tuple[str, ...] = STILL) -> None:
    """RunError unless a picture of that kind can be written there without losing anything."""
    if path.suffix.lower() not in endings:
        kinds = " or ".join(ending[1:].upper() for ending in endings)
        raise RunError(
            f"{path}: pictures are {kinds} files: give a name that ends in {' or '.join(endings)}"
        )
    check_output(path, overwrite)


def check_output(path: Path, overwrite: bool) -> None:
    """RunError unless a file can be written there without losing anything."""
    if path.is_dir() or (os.path.lexists(path) and not overwrite):
        raise RunError(f"{path} exists already: give another name, or --overwrite")
    check_place(path)


def check_place(path: Path) -> None:
    """RunError unless a file can be written there."""
    if path.is_dir():
        raise RunError(f"{path} is a folder: give the name of a file")
    if not path.parent.is_dir():
        raise RunError(f"there is no folder {path.parent} to write {path.name} in")
    if not os.access(path.parent, os.W_OK):
        raise RunError(f"cannot write in the folder {path.parent}")
