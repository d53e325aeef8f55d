"""CelebA: a folder of JPEGs, and the list of their official splits.

torchvision downloads it. Its reader is not used: it needs four more lists, which it parses for
seconds, and decodes every image again each time.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import NamedTuple

import torch

from vaezoo import BaseDataset, Splits
from vaezoo.data.base import hash_content, make_splits
from vaezoo.data.options import SPLIT_SEED
from vaezoo.errors import DataError
from vaezoo.io import read_regular

from .image_files import SplitIndices, cached_files, find_images, hold_out_validation
from .locator import DatasetLocator
from .options import CelebaOptions

_FOLDERS = ("celeba", "CelebA", "celebA")
# Below one of these: in torchvision's layout, in the archive's own, and in copies on the web.
_IMAGES = ("img_align_celeba/img_align_celeba", "img_align_celeba", "Img/img_align_celeba", ".")
_PARTITIONS = ("list_eval_partition.txt", "Eval/list_eval_partition.txt", "list_eval_partition.csv")
_IMAGE_NAME = re.compile(r"[0-9]{6}\.(jpg|png)")
_MAX_LIST_BYTES = 1 << 26
"""The official list has 2.8 MB."""


class CelebaFiles(NamedTuple):
    """The folder of the images, and the list of their splits if there is one."""

    images: Path
    partition: Path | None


class CelebaDataset(BaseDataset):
    """202,599 aligned faces, 178×218 colour. Liu, Luo, Wang & Tang 2015, arXiv:1411.7766.

    The centre of each (148 pixels square, as in Larsen et al. 2016 and most work since) is resized.
    list_eval_partition.txt has the splits; its validation split monitors training, unless
    `options.validation` examples are held out of training. Without the list, by file name: 80 % to
    train on, then 10 % to validate, 10 % to test. There are no classes: 40 attributes are not one.
    """

    options: CelebaOptions

    def load(self) -> Splits:
        options = self.options
        locator = DatasetLocator("celeba", _FOLDERS, _recognise)
        folder, partition = locator.locate(options.root, options.download, _download)
        files = {
            image.name[:6]: image
            for image in find_images(folder).images
            if _IMAGE_NAME.fullmatch(image.name)
        }
        if partition is None:
            images, official = [files[stem] for stem in sorted(files)], _split_by_name(len(files))
        else:
            listed = read_partition(partition)
            missing = [stem for stem in listed if stem not in files]
            if missing:
                raise DataError(
                    f"{folder} lacks {len(missing):,} of the {len(listed):,} images in "
                    f"{partition.name}, {missing[0]} first: unpack img_align_celeba.zip again"
                )
            images = [files[stem] for stem in listed]
            official = split_by_partition(partition, listed)

        def check(unreadable: list[tuple[int, str]]) -> None:
            if unreadable:
                first, reason = unreadable[0]
                raise DataError(
                    f"{len(unreadable):,} of {len(images):,} images of celeba cannot be read; the "
                    f"first is {folder / images[first].name}: {reason}; "
                    "unpack img_align_celeba.zip again"
                )

        shape = (3, *options.image_size)
        cached = cached_files("celeba", folder, images, shape, options, check)
        split = hold_out_validation(official, options.validation, SPLIT_SEED)
        train, validation, test = (f"{len(index):,} to" for index in split[:3])
        return make_splits(
            options,
            cached.images,
            None,
            split[:3],
            description=f"{split.description}: {train} train on, {validation} validate, "
            f"{test} test",
            fingerprint=hash_content(json.dumps([cached.digest, shape]).encode(), *split[:3]),
        )


def _recognise(folder: Path) -> CelebaFiles | None:
    for name in _IMAGES:
        images = folder / name
        try:
            with os.scandir(images) as entries:
                found = any(_IMAGE_NAME.fullmatch(entry.name) for entry in entries)
        except OSError:
            continue
        if found:
            nearby = [above / name for above in (folder, images.parent) for name in _PARTITIONS]
            return CelebaFiles(images, next(filter(os.path.isfile, nearby), None))
    return None


def read_partition(path: Path) -> dict[str, int]:
    """Read 0 (training), 1 (validation) or 2 (test) by the number of an image, such as 000001."""
    try:
        lines = read_regular(path, _MAX_LIST_BYTES).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {getattr(error, 'strerror', error)}") from None
    listed: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        fields = line.replace(",", " ").split()
        if not fields or (number == 1 and fields[0] == "image_id"):
            continue
        role = fields[1] if len(fields) == 2 else ""
        if not _IMAGE_NAME.fullmatch(fields[0]) or role not in ("0", "1", "2"):
            raise DataError(f"{path} is damaged: line {number} is not like '000001.jpg 0'")
        listed[fields[0][:6]] = int(role)
    return listed


def split_by_partition(path: Path, listed: dict[str, int]) -> SplitIndices:
    """The official splits, in the order of the list. DataError if one is empty."""
    roles = torch.tensor(list(listed.values()), dtype=torch.int64)
    train, validation, test = (torch.nonzero(roles == role).flatten() for role in range(3))
    if not len(train) or not len(test):
        raise DataError(f"{path} leaves {len(train)} images to train on and {len(test)} to test")
    return SplitIndices(train, validation if len(validation) else test, test, "official splits")


def _split_by_name(count: int) -> SplitIndices:
    if count < 3:
        raise DataError(f"celeba: {count} images are too few to train, validate and test")
    held = max(1, count // 10)
    train, validation, test = torch.split(torch.arange(count), [count - 2 * held, held, held])
    return SplitIndices(
        train, validation, test, "sorted by name, because list_eval_partition.txt is missing"
    )


def _download(folder: Path) -> None:
    from torchvision.datasets import CelebA

    CelebA(folder, download=True)
    (folder / "celeba" / "img_align_celeba.zip").unlink(missing_ok=True)
