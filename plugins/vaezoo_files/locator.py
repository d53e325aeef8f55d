"""Finding a known data set on this machine, and downloading it if it is not there."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from vaezoo import VaezooError
from vaezoo.errors import DataError
from vaezoo.io import full_path

from .cache import cache_folder
from .plugin import FILES

FoundT = TypeVar("FoundT")

Download = Callable[[Path], None]
"""Downloads a data set into an empty folder, in one of the layouts that are looked for."""

USUAL_FOLDERS = ("./data", "./datasets", "~/data", "~/datasets")


class IncompleteError(Exception):
    """A folder holds a part of a data set; the message names what is missing."""


@dataclass(frozen=True)
class DatasetLocator(Generic[FoundT]):
    """Finds one data set.

    name: of the data set. folders: where its files lie below a folder such as ./data; "." for that
    folder itself, only if no other data set has files of the same names.
    recognise: what the data set needs of a folder, or None if the folder has nothing of it; raises
    IncompleteError. system: folders in which packages of the operating system put it.
    """

    name: str
    folders: Sequence[str]
    recognise: Callable[[Path], FoundT | None]
    system: Sequence[str] = ()

    @property
    def _advice(self) -> str:
        return (
            "give --root DIR, the folder that holds it, or --download to fetch it; by hand: "
            f"{FILES[self.name]}"
        )

    def locate(self, root: Path | None, download: bool, fetch: Download) -> FoundT:
        """Return what `recognise` finds first, below root if given, else in the usual folders.

        If it is nowhere and download is set, it is downloaded into root or into the cache folder.
        DataError says where it was looked for and what to do.
        """
        downloads = cache_folder() / "downloads"
        usual = [*USUAL_FOLDERS, str(downloads)]
        if root is None:
            folders = [full_path(parent) / folder for parent in usual for folder in self.folders]
            found, missing = self._search([*folders, *map(Path, self.system)])
        else:
            found, missing = self._search_root(root)
        if found is None and download:
            root = downloads if root is None else root
            download_into(root, fetch, self.name)
            found, missing = self._search_root(root)
            missing = f"it was downloaded into {root}, but {missing or 'is not there'}"
        if found is not None:
            return found
        if missing:
            raise DataError(f"{self.name} is incomplete: {missing}; {self._advice}")
        if root is None:
            looked = ", ".join([*usual, *self.system])
            raise DataError(f"{self.name} was not found (looked in {looked}): {self._advice}")
        if not os.path.isdir(root):
            raise DataError(f"--root {root} is not a folder: {self._advice}")
        below = ", ".join(folder for folder in self.folders if folder != ".")
        raise DataError(
            f"{self.name} was not found in {root} (nor below it in {below}): {self._advice}"
        )

    def _search_root(self, root: Path) -> tuple[FoundT | None, str]:
        # A user who names the folder knows what is in it: the files may lie there directly.
        return self._search([root / folder for folder in (*self.folders, ".", "raw")])

    def _search(self, folders: Sequence[Path]) -> tuple[FoundT | None, str]:
        """What was found, or None and what the first incomplete folder lacks."""
        missing = ""
        for folder in folders:
            try:
                found = self.recognise(folder)
            except IncompleteError as error:
                missing = missing or str(error)
                continue
            if found is not None:
                return found, ""
        return None, missing


def download_into(target: Path, fetch: Download, name: str) -> None:
    """Download into a temporary folder, then move what is complete into `target`.

    A failed download leaves nothing behind. DataError when it fails.
    """
    created = not target.exists()
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=target) as scratch:
            # torchvision prints; stdout is for what the user asked for.
            with contextlib.redirect_stdout(sys.stderr):
                fetch(Path(scratch))
            for item in sorted(Path(scratch).iterdir()):
                if item.is_dir():
                    shutil.copytree(
                        item, target / item.name, copy_function=os.replace, dirs_exist_ok=True
                    )
                else:
                    item.replace(target / item.name)
    except Exception as error:  # torchvision, urllib, gzip, tarfile each raise their own
        if created:
            with contextlib.suppress(OSError):
                target.rmdir()
        if isinstance(error, VaezooError):
            raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise DataError(
            f"{name} could not be downloaded ({reason}): try again, or fetch it by hand and give "
            f"--root DIR: {FILES[name]}"
        ) from None
