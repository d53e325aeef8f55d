"""A tree of image files as a data set."""

from __future__ import annotations

import hashlib
import heapq
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaezoo.data import decode
from vaezoo.data.base import BaseDataset, Splits, TensorSplit, domain_of, random_split
from vaezoo.data.cache import Append, Stored, cached_images
from vaezoo.data.decode import SUFFIXES, UnreadableImageError, is_grey
from vaezoo.data.decode_many import decode_all
from vaezoo.data.layout import Place, arrange
from vaezoo.data.options import DecodeOptions, FolderOptions
from vaezoo.data.spec import DataSpec
from vaezoo.errors import DataError, printable

VERSION = 1
"""Of what the store keeps for a folder."""

LOOKED_AT = 32
"""Images looked at, evenly over the folder, to tell whether it holds colour."""


class _Parts(NamedTuple):
    """Indices of the images of each split, and in words how they came about."""

    train: Tensor
    validation: Tensor
    test: Tensor
    how: str


class FolderDataset(BaseDataset):
    """A tree of images: see `arrange` for what its folders mean."""

    options: FolderOptions

    def load(self) -> Splits:
        if self.options.root is None:
            raise DataError("the data set folder needs --root DIR: where the images lie")
        root = self.options.root
        tree = _find(root)
        found = zip(tree.images, arrange([image.name for image in tree.images]), strict=True)
        used = [(image, place) for image, place in found if place is not None]
        images = [image for image, _ in used]
        shape = (self._channels(root, images), *self.options.image_size)
        stored = self._decode(root, tree, images, shape)
        skipped = self._skipped(root, tree, images, stored.info)

        unreadable = {position for position, _ in stored.info["unreadable"]}
        places = [place for n, (_, place) in enumerate(used) if n not in unreadable]
        classes = sorted({p.class_name for p in places if p.class_name is not None})
        labels = _labels(places, classes)
        parts = self._split(root, places)
        how = f"{len(places):,} images"
        if classes:
            how += f" in {len(classes)} classes"
        how += f": {len(parts.train):,} to train on, {len(parts.test):,} to test, {parts.how}"
        if len(used) < len(tree.images):
            beside = len(tree.images) - len(used)
            how += f"; left out: {beside:,} that lie beside the folders of the splits or classes"
        return Splits(
            spec=DataSpec(
                shape=shape,
                domain=domain_of(self.options),
                class_names=tuple(printable(name) for name in classes),
                num_examples=len(parts.train),
            ),
            train=TensorSplit(stored.images, labels, parts.train),
            validation=TensorSplit(stored.images, labels, parts.validation),
            test=TensorSplit(stored.images, labels, parts.test),
            description=how,
            skipped=skipped,
            fingerprint=_fingerprint(stored.digest, shape, classes, labels, parts),
        )

    def _channels(self, root: Path, images: Sequence[ImageFile]) -> int:
        if self.options.channels != "auto":
            return int(self.options.channels)
        for image in images[:: max(1, len(images) // LOOKED_AT)]:
            try:
                if not is_grey(root / image.name, self.options):
                    return 3
            except UnreadableImageError:
                continue  # decoding will count it
        return 1

    def _decode(
        self, root: Path, tree: ImageTree, images: Sequence[ImageFile], shape: tuple[int, int, int]
    ) -> Stored:
        """The images, from the store if these very files were decoded like this before."""

        def build(append: Append) -> dict[str, Any]:
            paths = [root / image.name for image in images]
            info = {"unreadable": decode_all(paths, shape, self.options, append)}
            self._skipped(root, tree, images, info)  # what is refused is not worth storing
            return info

        return cached_images(_content_key(images, self.options), shape, len(images), build)

    def _skipped(
        self, root: Path, tree: ImageTree, images: Sequence[ImageFile], info: Mapping[str, Any]
    ) -> list[tuple[str, str]]:
        """(path, reason) of what cannot be read; DataError when that is too much."""
        skipped = [(images[position].name, reason) for position, reason in info["unreadable"]]
        skipped = [(printable(name), reason) for name, reason in skipped + tree.unreadable]
        if not skipped:
            return skipped
        total, share = len(images) + len(tree.unreadable), self.options.max_skipped
        what = f"{root}: {len(skipped):,} of {total:,} images ({len(skipped) / total:.0%})"
        first = "; the first is {}: {}".format(*skipped[0])
        if len(skipped) > share * total:
            raise DataError(f"{what} cannot be read, and max_skipped allows {share:.0%}{first}")
        if len(images) - len(info["unreadable"]) < 2:
            raise DataError(f"{what} cannot be read, which leaves too few to train and test{first}")
        return skipped

    def _split(self, root: Path, places: Sequence[Place]) -> _Parts:
        options = self.options
        at: dict[str, Tensor] = {
            role: torch.tensor([i for i, place in enumerate(places) if place.role == role])
            for role in {place.role for place in places}
        }
        if "all" in at:
            at = self._split_by_share(len(places))
            how = (
                "sorted by path"
                if options.split == "sorted"
                else f"at random by seed {options.split_seed}"
            )
        elif "train" not in at or len(at) == 1:
            missing = "train" if "train" not in at else "test"
            raise DataError(f"{root}: none of the images in its {missing} folder can be read")
        else:
            how = "as the folders say"
        train, test = at["train"], at["test"] if "test" in at else at["validation"]
        if not options.validation:
            return _Parts(train, at.get("validation", test), test, how)
        if "test" in at and "validation" in at:
            how += "; the validation folder is not used, for --validation is given"
        left, held_out, _ = random_split(len(train), 0, options.validation, options.split_seed)
        how += f"; {len(held_out):,} held out of training by seed {options.split_seed}"
        return _Parts(train[left], train[held_out], test, how)

    def _split_by_share(self, count: int) -> dict[str, Tensor]:
        options = self.options
        # Rounded down, as the tutorial does; 1 - 0.8 falls short of 0.2 by a rounding error.
        for_training = int(count * (1 - options.test_fraction) + 1e-9)
        for_training = min(max(for_training, 1), count - 1)
        if options.split == "sorted":
            everything = torch.arange(count)
            return {"train": everything[:for_training], "test": everything[for_training:]}
        train, _, test = random_split(count, count - for_training, 0, options.split_seed)
        return {"train": train, "test": test}


def _find(root: Path) -> ImageTree:
    """The images under root; DataError when there are none, or one."""
    give = "give the folder that holds the images with --root"
    if root.is_file():
        raise DataError(f"{root} is a file: {give}")
    try:
        tree = find_images(root)
    except FileNotFoundError:
        raise DataError(f"{root} does not exist: {give}") from None
    except OSError as error:
        raise DataError(f"cannot read {root}: {error.strerror or error}") from None
    if tree.images:
        if len(tree.images) == 1:
            raise DataError(f"{root} holds one image: it takes two at least, to train and to test")
        return tree
    if tree.unreadable:
        name, reason = tree.unreadable[0]
        raise DataError(f"{root}: no images found; {printable(name)} cannot be read: {reason}")
    if not tree.others:
        raise DataError(f"{root} is empty: {give}")
    others = ", ".join(f"{n:,} {printable(kind)}" for kind, n in tree.others.most_common(3))
    raise DataError(f"{root} holds no images, only other files ({others}): {give}")


def _content_key(images: Sequence[ImageFile], options: FolderOptions) -> str:
    """What the decoded images follow from; not where the folder lies."""
    how = {name: getattr(options, name) for name in DecodeOptions.model_fields}
    key = hashlib.sha256(json.dumps([VERSION, decode.VERSION, how], sort_keys=True).encode())
    for image in images:
        key.update(json.dumps([image.name, *image.state]).encode())
    return f"folder {key.hexdigest()}"


def _labels(places: Sequence[Place], classes: Sequence[str]) -> Tensor | None:
    """int64 [images], -1 where the class is unknown; None where there are no classes."""
    if not classes:
        return None
    number: dict[str | None, int] = {name: i for i, name in enumerate(classes)}
    return torch.tensor([number.get(place.class_name, -1) for place in places])


def _fingerprint(
    digest: str,
    shape: tuple[int, ...],
    classes: Sequence[str],
    labels: Tensor | None,
    parts: _Parts,
) -> str:
    """sha256 of the pixels, the labels and the splits: the same for a copy of the folder."""
    known = hashlib.sha256(json.dumps([VERSION, digest, shape, classes]).encode())
    for numbers in (labels, parts.train, parts.validation, parts.test):
        text = b"none" if numbers is None else numbers.numpy().astype("<i8").tobytes()
        known.update(len(text).to_bytes(8, "little") + text)
    return known.hexdigest()


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
