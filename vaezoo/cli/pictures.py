"""What commands that write a picture ask of its name."""

from __future__ import annotations

import os
from pathlib import Path

from vaezoo.errors import RunError


def check_picture(path: Path, overwrite: bool) -> None:
    """RunError unless a PNG can be written there without losing anything."""
    if path.suffix.lower() != ".png":
        raise RunError(f"{path}: pictures are PNG files: give a name that ends in .png")
    if path.is_dir() or (os.path.lexists(path) and not overwrite):
        raise RunError(f"{path} exists already: give another name, or --overwrite")
    if not path.parent.is_dir():
        raise RunError(f"there is no folder {path.parent} to write {path.name} in")
    if not os.access(path.parent, os.W_OK):
        raise RunError(f"cannot write in the folder {path.parent}")
