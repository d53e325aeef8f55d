"""What the well-known sets have in common: found on disk, read whole, resized once, split."""

from __future__ import annotations

import hashlib
import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from vaezoo.data.base import BaseDataset, Splits, TensorSplit, domain_of, random_split
from vaezoo.data.cache import Append, cached_images
from vaezoo.data.options import KnownOptions
from vaezoo.data.places import Incomplete, Whereabouts
from vaezoo.data.spec import DataSpec
from vaezoo.errors import DataError

SPLIT_SEED = 0
"""Which training examples are held out for validation: the same ones in every run."""

_RESIZE_VERSION = 1
"""Part of the key of resized images: a change of `resize` must not meet images of an older one."""

_AT_ONCE = 1024


class Examples(NamedTuple):
    """images: uint8 [n, channels, height, width]. labels: int64 [n], from 0."""

    images: Tensor
    labels: Tensor


class KnownDataset(BaseDataset):
    """A set with official training and test splits, read from its own files into memory.

    Subclasses say where the files lie, how they are read and how they are fetched. The test split
    is the official one; `options.validation` examples are held out of the official training split.
    """

    options: KnownOptions

    name: ClassVar[str]
    folders: ClassVar[tuple[str, ...]]
    """Where the files lie below a place such as ./data, as torchvision has it and otherwise."""

    system: ClassVar[tuple[str, ...]] = ()
    """Folders where packages of the operating system put the files."""

    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, by class number."""

    @abstractmethod
    def files(self) -> Sequence[Sequence[str]]:
        """The files of the set; for each, the names that it may have."""

    @abstractmethod
    def read(self, files: Sequence[Path]) -> tuple[Examples, Examples]:
        """The official training and test examples, from files in the order of `files`."""

    @abstractmethod
    def fetch(self, folder: Path) -> None:
        """Download the set into an empty folder. Whatever it raises means that it failed."""

    def load(self) -> Splits:
        options = self.options
        where = Whereabouts(self.name, self.folders, self._recognise, self.system)
        official = self.read(where.locate(options.root, options.download, self.fetch))
        for examples, kind in zip(official, ("training", "test"), strict=True):
            self._check(examples, kind)
        if official[0].images.shape[1:] != official[1].images.shape[1:]:
            raise DataError(f"{self.name}: training and test images differ in size")
        content = hashlib.sha256(b"".join(digest(*examples) for examples in official))

        if options.image_size is not None:
            content.update(repr(options.image_size).encode())
            official = tuple(  # type: ignore[assignment]
                examples._replace(images=resize(examples.images, options.image_size))
                for examples in official
            )
        train, test = official
        part, validation, _ = random_split(len(train.images), 0, options.validation, SPLIT_SEED)
        watched = TensorSplit(*train, validation) if len(validation) else TensorSplit(*test)
        how = f"official: {len(part):,} to train on, {len(test.images):,} to test"
        if len(validation):
            how += f"; {len(validation):,} held out of training by seed {SPLIT_SEED}"
        return Splits(
            spec=DataSpec(
                shape=tuple(train.images.shape[1:]),
                domain=domain_of(options),
                class_names=self.class_names(),
                num_examples=len(part),
            ),
            train=TensorSplit(*train, part if len(validation) else None),
            validation=watched,
            test=TensorSplit(*test),
            description=how,
            fingerprint=content.hexdigest(),
        )

    def _recognise(self, folder: Path) -> list[Path] | None:
        found, missing = [], []
        for names in self.files():
            paths = [folder / name for name in names if os.path.isfile(folder / name)]
            found += paths[:1]
            if not paths:
                missing.append(" or ".join(names[:2]))
        if found and missing:
            raise Incomplete(f"{folder} has no {missing[0]}")
        return found or None

    def _check(self, examples: Examples, kind: str) -> None:
        images, labels = examples
        count = len(self.class_names())
        if not len(images):
            raise DataError(f"{self.name}: there are no {kind} images")
        if len(images) != len(labels):
            raise DataError(f"{self.name}: {len(images)} {kind} images have {len(labels)} labels")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= count:
            raise DataError(
                f"{self.name}: {kind} labels go from {low} to {high}, where classes go from 0 to "
                f"{count - 1}: these files are of another set, or damaged"
            )


def digest(images: Tensor, labels: Tensor | None) -> bytes:
    """sha256 of the shape, pixels and labels of images."""
    result = hashlib.sha256(repr((tuple(images.shape), str(images.dtype))).encode())
    for tensor in (images,) if labels is None else (images, labels):
        result.update(tensor.contiguous().numpy().data)
    return result.digest()


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images stretched to size (height, width), bilinearly and antialiased: once, then stored.

    images: uint8 [n, channels, h, w]. Returns uint8 [n, channels, height, width].
    """
    count, channels, height, width = images.shape
    if (height, width) == size:
        return images

    def build(append: Append) -> dict[str, Any]:
        for piece in resized(images, size):
            append(piece.numpy())
        return {}

    key = f"resize {_RESIZE_VERSION} {size} {digest(images, None).hex()}"
    return cached_images(key, (channels, *size), count, build).images


def resized(images: Tensor, size: tuple[int, int]) -> Iterator[Tensor]:
    """The resized images, some at a time. Levels are rounded to the nearest whole number."""
    for piece in torch.split(images, _AT_ONCE):
        values = functional.interpolate(piece.float(), size, mode="bilinear", antialias=True)
        yield values.round_().clamp_(0, 255).to(torch.uint8)
