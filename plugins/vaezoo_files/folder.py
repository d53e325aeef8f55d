"""The data set `folder`: any tree of image files, with splits and classes from its folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaezoo import BaseDataset, Splits
from vaezoo.data.base import hash_content, make_splits, random_split
from vaezoo.data.decode import UnreadableImageError, is_grey
from vaezoo.errors import DataError, printable

from .image_files import (
    ImageFile,
    ImageTree,
    SplitIndices,
    cached_files,
    find_images,
    hold_out_validation,
)
from .options import FolderOptions
from .placements import Placement, assign_placements

VERSION = 1
"""The version of fingerprints of folders."""

GREY_SAMPLES = 32
"""Images, evenly over the folder, in which colour is looked for."""


class FolderDataset(BaseDataset):
    """A tree of images; see `assign_placements` for the meaning of its folders."""

    options: FolderOptions

    def load(self) -> Splits:
        if self.options.root is None:
            raise DataError("the data set folder needs --root DIR: where the images lie")
        root = self.options.root
        tree = _find(root)
        placed = assign_placements([image.name for image in tree.images])
        pairs = zip(tree.images, placed, strict=True)
        used = [(image, placement) for image, placement in pairs if placement is not None]
        images = [image for image, _ in used]
        shape = (self._channels(root, images), *self.options.image_size)
        check = partial(self._skipped, root, tree, images)
        cached = cached_files("folder", root, images, shape, self.options, check)
        skipped = check(cached.info["unreadable"])

        failed = {position for position, _ in cached.info["unreadable"]}
        placements = [placement for n, (_, placement) in enumerate(used) if n not in failed]
        files = [printable(image.name) for n, image in enumerate(images) if n not in failed]
        classes = sorted({p.class_name for p in placements if p.class_name is not None})
        number: dict[str | None, int] = {name: i for i, name in enumerate(classes)}
        # -1 where the class of an image is unknown.
        numbers = [number.get(placement.class_name, -1) for placement in placements]
        labels = torch.tensor(numbers) if classes else None
        split = self._split(root, placements)
        description = f"{len(placements):,} images"
        if classes:
            description += f" in {len(classes)} class{'es' * (len(classes) > 1)}"
        counts = f"{len(split.train):,} to train on, {len(split.test):,} to test"
        description += f": {counts}, {split.description}"
        about = json.dumps([VERSION, cached.digest, shape, classes])
        return make_splits(
            self.options,
            cached.images,
            labels,
            split[:3],
            class_names=[printable(name) for name in classes],
            description=description,
            skipped=skipped,
            files=files,
            notes=self._notes(tree, images, len(tree.images) - len(used), skipped, cached.info),
            fingerprint=hash_content(about.encode(), labels, *split[:3]),
        )

    def _channels(self, root: Path, images: Sequence[ImageFile]) -> int:
        if self.options.channels != "auto":
            return int(self.options.channels)
        for image in images[:: max(1, len(images) // GREY_SAMPLES)]:
            try:
                if not is_grey(root / image.name, self.options):
                    return 3
            except UnreadableImageError:
                continue  # decoding counts it
        return 1

    def _skipped(
        self,
        root: Path,
        tree: ImageTree,
        images: Sequence[ImageFile],
        unreadable: Sequence[tuple[int, str]],
    ) -> list[tuple[str, str]]:
        """(path, reason) of what cannot be read; DataError when that is too much."""
        skipped = [(images[position].name, reason) for position, reason in unreadable]
        skipped = [(printable(name), reason) for name, reason in skipped + tree.unreadable]
        if not skipped:
            return skipped
        total, limit = len(images) + len(tree.unreadable), self.options.max_skipped
        what = f"{root}: {len(skipped):,} of {total:,} images ({len(skipped) / total:.0%})"
        first = "; the first is {}: {}".format(*skipped[0])
        if len(skipped) > limit * total:
            raise DataError(f"{what} cannot be read, and max_skipped allows {limit:.0%}{first}")
        if len(images) - len(unreadable) < 2:
            raise DataError(f"{what} cannot be read, which leaves too few to train and test{first}")
        return skipped

    def _notes(
        self,
        tree: ImageTree,
        images: Sequence[ImageFile],
        beside: int,
        skipped: Sequence[tuple[str, str]],
        info: dict[str, Any],
    ) -> list[str]:
        """What was left out, and which images have more frames than the one that is used."""
        notes = []
        if skipped:
            total = len(images) + len(tree.unreadable)
            large = any("max_megapixels" in reason for _, reason in skipped)
            option = "--max-megapixels admits larger" if large else "--max-skipped 0 refuses such"
            shown = _first_three([f"{name}: {reason}" for name, reason in skipped])
            notes.append(f"skipped {len(skipped):,} of {total:,} images ({option} ones): {shown}")
        if beside:
            what = "image" if beside == 1 else "images"
            notes.append(f"left out {beside:,} {what} beside the folders of the splits or classes")
        if tree.others:
            kinds = ", ".join(f"{n:,} {printable(kind)}" for kind, n in tree.others.most_common(3))
            count = tree.others.total()
            what = "file that is no image" if count == 1 else "files that are no images"
            notes.append(f"left out {count:,} {what} ({kinds})")
        animated = [printable(images[position].name) for position in info.get("animated", [])]
        if animated:
            shown = _first_three(animated)
            what = "image" if len(animated) == 1 else "images"
            notes.append(f"used the first frame of {len(animated):,} animated {what}: {shown}")
        return notes

    def _split(self, root: Path, placements: Sequence[Placement]) -> SplitIndices:
        options = self.options
        at: dict[str, Tensor] = {
            role: torch.tensor([i for i, p in enumerate(placements) if p.role == role])
            for role in {p.role for p in placements}
        }
        if "all" in at:
            at = self._split_by_fraction(len(placements))
            by_seed = f"at random by seed {options.split_seed}"
            description = "sorted by path" if options.split == "sorted" else by_seed
        elif "train" not in at or len(at) == 1:
            missing = "train" if "train" not in at else "test"
            raise DataError(f"{root}: none of the images in its {missing} folder can be read")
        else:
            description = "as the folders say"
        train, test = at["train"], at["test"] if "test" in at else at["validation"]
        official = SplitIndices(train, at.get("validation", test), test, description)
        if options.validation and "test" in at and "validation" in at:
            description += "; the validation folder is not used, because --validation is given"
        return hold_out_validation(
            official._replace(description=description), options.validation, options.split_seed
        )

    def _split_by_fraction(self, count: int) -> dict[str, Tensor]:
        options = self.options
        # Rounded down, as in the tutorial; 1 - 0.8 is less than 0.2 by a rounding error.
        for_training = int(count * (1 - options.test_fraction) + 1e-9)
        for_training = min(max(for_training, 1), count - 1)
        if options.split == "sorted":
            everything = torch.arange(count)
            return {"train": everything[:for_training], "test": everything[for_training:]}
        train, _, test = random_split(count, count - for_training, 0, options.split_seed)
        return {"train": train, "test": test}


def _first_three(texts: Sequence[str]) -> str:
    more = f", and {len(texts) - 3:,} more" if len(texts) > 3 else ""
    return "; ".join(texts[:3]) + more


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
    if len(tree.images) == 1:
        raise DataError(f"{root} holds one image: at least two are needed, to train and to test")
    if tree.images:
        return tree
    if tree.unreadable:
        name, reason = tree.unreadable[0]
        raise DataError(f"{root}: no images found; {printable(name)} cannot be read: {reason}")
    if not tree.others:
        raise DataError(f"{root} is empty: {give}")
    others = ", ".join(f"{n:,} {printable(kind)}" for kind, n in tree.others.most_common(3))
    raise DataError(f"{root} holds no images, only other files ({others}): {give}")
