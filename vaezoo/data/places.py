"""Where a known data set may already lie on this machine, and how it is fetched if it does not."""

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

from vaezoo.data.cache import cache_folder
from vaezoo.errors import DataError
from vaezoo.io import full_path

FoundT = TypeVar("FoundT")

Fetch = Callable[[Path], None]
"""Downloads a data set into an empty folder, in one of the layouts that are looked for."""


class Incomplete(Exception):
    """A folder that holds a part of a data set; the message names what is missing."""


@dataclass(frozen=True)
class Whereabouts(Generic[FoundT]):
    """How one data set is found.

    name: of the data set. folders: where its files lie below a place such as ./data, "." for the
    place itself (only if its files have names that no other data set uses). recognise: what it
    needs of a folder, None if the folder has nothing of it; raises Incomplete. system: folders
    where packages of the operating system put it.
    """

    name: str
    folders: Sequence[str]
    recognise: Callable[[Path], FoundT | None]
    system: Sequence[str] = ()

    def locate(self, root: Path | None, download: bool, fetch: Fetch) -> FoundT:
        """What `recognise` found first: below root if that is given, else in the usual places.

        When it is nowhere and download is set, it is fetched into root, or into the cache folder.
        DataError says where it was looked for and what to do.
        """
        found, partly = self._look(root)
        if found is not None:
            return found
        if not download:
            raise DataError(self._nowhere(root, partly))
        target = downloads_folder() if root is None else root
        fetch_into(target, fetch, self.name)
        found, partly = self._look(target)
        if found is None:
            raise DataError(
                f"{self.name} was fetched into {target}, but {partly or 'is not there'}"
            )
        return found

    def _look(self, root: Path | None) -> tuple[FoundT | None, str]:
        """What was found, or None and a word on the first folder that has a part of it."""
        if root is not None:
            # Whoever names a folder knows what is in it: there it may lie without its own folder.
            folders = [root / folder for folder in (*self.folders, ".", "raw")]
        else:
            places = [place for place, _ in usual_places()]
            folders = [place / folder for place in places for folder in self.folders]
            folders += map(Path, self.system)
        partly = ""
        for folder in folders:
            try:
                found = self.recognise(folder)
            except Incomplete as error:
                partly = partly or str(error)
                continue
            if found is not None:
                return found, ""
        return None, partly

    def _nowhere(self, root: Path | None, partly: str) -> str:
        what_to_do = "give --root DIR, the folder that holds it, or --download to fetch it"
        if partly:
            return f"{self.name} is incomplete: {partly}; {what_to_do}"
        if root is None:
            looked = ", ".join([*(shown for _, shown in usual_places()), *self.system])
            return f"{self.name} was not found (looked in {looked}): {what_to_do}"
        if not os.path.isdir(root):
            return f"--root {root} is not a folder: {what_to_do}"
        below = ", ".join(folder for folder in self.folders if folder != ".")
        return f"{self.name} was not found in {root} (nor below it in {below}): {what_to_do}"


def usual_places() -> list[tuple[Path, str]]:
    """Folders in which data sets are kept, each with how it is shown to the user."""
    shown = ["./data", "./datasets", "~/data", "~/datasets"]
    places = [(full_path(name), name) for name in shown]
    return [*places, (downloads_folder(), str(downloads_folder()))]


def downloads_folder() -> Path:
    """Where data sets are fetched to unless a root is given."""
    return cache_folder() / "downloads"


def fetch_into(target: Path, fetch: Fetch, name: str) -> None:
    """Let `fetch` download into a folder of its own, then move what is whole into `target`.

    A download that breaks off leaves nothing behind. DataError when it fails.
    """
    created = not target.exists()
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=target) as scratch:
            # torchvision prints; stdout is for what the user asked for.
            with contextlib.redirect_stdout(sys.stderr):
                fetch(Path(scratch))
            for item in sorted(Path(scratch).iterdir()):
                _merge(item, target / item.name)
    except DataError:
        raise
    except Exception as error:  # torchvision, urllib, gzip, tarfile each raise their own
        if created:
            with contextlib.suppress(OSError):
                target.rmdir()
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise DataError(
            f"{name} could not be downloaded ({reason}): try again, or fetch it elsewhere and "
            "give --root"
        ) from None


def _merge(source: Path, target: Path) -> None:
    """Move a file or a folder; into a folder that exists, item by item, replacing files."""
    if source.is_dir() and target.is_dir():
        for item in source.iterdir():
            _merge(item, target / item.name)
    else:
        if target.is_dir():
            shutil.rmtree(target)
        source.replace(target)
