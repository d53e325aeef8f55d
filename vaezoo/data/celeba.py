"""CelebA: a folder of JPEGs with a list that says which are for training."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaezoo.data import decode
from vaezoo.data.base import BaseDataset, Splits, TensorSplit, domain_of, random_split
from vaezoo.data.cache import Append, Stored, cached_images
from vaezoo.data.decode_many import decode_all
from vaezoo.data.known import SPLIT_SEED
from vaezoo.data.options import CelebaOptions, DecodeOptions
from vaezoo.data.places import Whereabouts
from vaezoo.data.spec import DataSpec
from vaezoo.errors import DataError
from vaezoo.io import read_regular

_FOLDERS = ("celeba", "CelebA", "celebA")
# Below one of these, as torchvision, the archive's own tree and copies on the web have it.
_IMAGES = ("img_align_celeba/img_align_celeba", "img_align_celeba", "Img/img_align_celeba", ".")
_PARTITIONS = ("list_eval_partition.txt", "Eval/list_eval_partition.txt", "list_eval_partition.csv")
_IMAGE_NAME = re.compile(r"[0-9]{6}\.(jpg|png)")
_LARGEST_LIST = 1 << 26
"""Bytes; the official one has 2.8 MB."""


class _Found(NamedTuple):
    """The folder of the images, and the list of which belongs to which split, if it is there."""

    images: Path
    partition: Path | None


class _Parts(NamedTuple):
    """Positions of the images of each split, and in words how they came about."""

    train: Tensor
    validation: Tensor
    test: Tensor
    how: str


class CelebaDataset(BaseDataset):
    """202,599 aligned faces, 178×218 colour. Liu, Luo, Wang & Tang 2015, arXiv:1411.7766.

    The centre of each is cut out (148 pixels square, as Larsen et al. 2016 and most since) and
    resized. Splits are those of list_eval_partition.txt; training is watched by its validation
    split, unless `options.validation` examples are held out of training instead. Where that list is
    missing: the first 80 % by file name to train on, then 10 % to validate, 10 % to test. There are
    no classes: the attributes are 40 answers, not one.
    """

    options: CelebaOptions

    def load(self) -> Splits:
        options = self.options
        where = Whereabouts("celeba", _FOLDERS, _recognise)
        found = where.locate(options.root, options.download, _fetch)
        files = _images_in(found.images)
        if found.partition is None:
            names = sorted(files.values())
            parts = self._hold_out(_by_name(len(names)))
        else:
            listed = _read_partition(found.partition)
            missing = [stem for stem in listed if stem not in files]
            if missing:
                raise DataError(
                    f"{found.images} lacks {len(missing):,} of the {len(listed):,} images in "
                    f"{found.partition.name}, {missing[0]} first: unpack img_align_celeba.zip again"
                )
            names = [files[stem] for stem in listed]
            parts = self._hold_out(_by_partition(found.partition, list(listed.values())))

        shape = (3, *options.image_size)
        stored = self._decode(found.images, names, shape)
        splits = [TensorSplit(stored.images, None, index) for index in parts[:3]]
        known = hashlib.sha256(json.dumps([stored.digest, shape]).encode())
        for index in parts[:3]:
            known.update(len(index).to_bytes(8, "little") + index.numpy().astype("<i8").tobytes())
        return Splits(
            spec=DataSpec(shape=shape, domain=domain_of(options), num_examples=len(parts.train)),
            train=splits[0],
            validation=splits[1],
            test=splits[2],
            description=f"{parts.how}: {len(parts.train):,} to train on, "
            f"{len(parts.validation):,} to validate, {len(parts.test):,} to test",
            fingerprint=known.hexdigest(),
        )

    def _hold_out(self, official: _Parts) -> _Parts:
        if not self.options.validation:
            return official
        train, _, test, how = official
        left, held_out, _ = random_split(len(train), 0, self.options.validation, SPLIT_SEED)
        how += f", validation held out of training by seed {SPLIT_SEED}"
        return _Parts(train[left], train[held_out], test, how)

    def _decode(self, folder: Path, names: Sequence[str], shape: tuple[int, int, int]) -> Stored:
        """The images, from the store if these very files were decoded like this before."""
        how = {name: getattr(self.options, name) for name in DecodeOptions.model_fields}
        key = hashlib.sha256(json.dumps([decode.VERSION, how], sort_keys=True).encode())
        try:
            for name in names:
                state = os.stat(folder / name)
                key.update(json.dumps([name, state.st_size, state.st_mtime_ns]).encode())
        except OSError as error:
            raise DataError(f"cannot read {error.filename}: {error.strerror}") from None

        def build(append: Append) -> dict[str, Any]:
            paths = [folder / name for name in names]
            unreadable = decode_all(paths, shape, self.options, append)
            if unreadable:
                first, reason = unreadable[0]
                raise DataError(
                    f"{len(unreadable):,} of {len(names):,} images of celeba cannot be read; the "
                    f"first is {paths[first]}: {reason}; unpack img_align_celeba.zip again"
                )
            return {}

        return cached_images(f"celeba {key.hexdigest()}", shape, len(names), build)


def _recognise(folder: Path) -> _Found | None:
    for name in _IMAGES:
        images = folder / name
        if _holds_images(images):
            nearby = [above / name for above in (folder, images.parent) for name in _PARTITIONS]
            return _Found(images, next(filter(os.path.isfile, nearby), None))
    return None


def _holds_images(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(_IMAGE_NAME.fullmatch(entry.name) for entry in entries)
    except OSError:
        return False


def _images_in(folder: Path) -> dict[str, str]:
    """File names of the images by their number: 000001 for 000001.jpg."""
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise DataError(f"cannot read {folder}: {error.strerror or error}") from None
    return {name[:6]: name for name in names if _IMAGE_NAME.fullmatch(name)}


def _read_partition(path: Path) -> dict[str, int]:
    """0 (training), 1 (validation) or 2 (test) by an image's number, in the order of the list."""
    try:
        lines = read_regular(path, _LARGEST_LIST).decode("utf-8").splitlines()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read {path}: {error}") from None
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


def _by_partition(path: Path, roles: Sequence[int]) -> _Parts:
    role = torch.tensor(roles, dtype=torch.int64)
    train, validation, test = (torch.nonzero(role == number).flatten() for number in range(3))
    if not len(train) or not len(test):
        raise DataError(f"{path} leaves {len(train)} images to train on and {len(test)} to test")
    return _Parts(train, validation if len(validation) else test, test, "official splits")


def _by_name(count: int) -> _Parts:
    if count < 3:
        raise DataError(f"celeba: {count} images are too few to train, validate and test")
    held = max(1, count // 10)
    train, validation, test = torch.split(torch.arange(count), [count - 2 * held, held, held])
    return _Parts(train, validation, test, "sorted by name, for list_eval_partition.txt is missing")


def _fetch(folder: Path) -> None:
    from torchvision.datasets import CelebA

    CelebA(str(folder), download=True)
    (folder / "celeba" / "img_align_celeba.zip").unlink(missing_ok=True)
