"""One data set that keeps the contract, and others that each break it in one place."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from vaezoo import BaseDataset, DataOptions, DataSpec, Splits, TensorSplit
from vaezoo.data.base import domain_of, random_split
from vaezoo.data.options import DiskOptions
from vaezoo.errors import DataError

COUNT = 120
_counter = itertools.count()


class Stripes(BaseDataset):
    """Noise, by one seed."""

    options: DataOptions
    shape: ClassVar[tuple[int, ...] | None] = (1, 8, 8)

    def load(self) -> Splits:
        images, labels = self.draw()
        parts = random_split(COUNT, 20, self.options.validation, 0)
        train, validation, test = (TensorSplit(images, labels, index) for index in parts)
        known = f"{self.options.validation}{self.options.binarize}"
        splits = Splits(
            spec=DataSpec(
                shape=(1, 8, 8),
                domain=domain_of(self.options),
                class_names=("a", "b"),
                num_examples=len(train),
            ),
            train=train,
            validation=validation if len(validation) else test,
            test=test,
            description="drawn",
            fingerprint=hashlib.sha256(known.encode()).hexdigest(),
        )
        return self.change(splits)

    def change(self, splits: Splits) -> Splits:
        """The splits; a wrong data set changes them."""
        return splits

    def draw(self) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (COUNT, 1, 8, 8), generator=generator, dtype=torch.uint8)
        return images, torch.arange(COUNT) % 2


class Miscounts(Stripes):
    def change(self, splits: Splits) -> Splits:
        return replace(splits, spec=replace(splits.spec, num_examples=COUNT))


class ClaimsAShape(Stripes):
    shape = (3, 8, 8)


class OtherShape(Stripes):
    def change(self, splits: Splits) -> Splits:
        return replace(splits, spec=replace(splits.spec, shape=(1, 9, 9)))


class WrongBatch(OtherShape):
    shape = None


class Floats(Stripes):
    def draw(self) -> tuple[Tensor, Tensor]:
        images, labels = super().draw()
        return images / 255, labels


class ThirdClass(Stripes):
    def draw(self) -> tuple[Tensor, Tensor]:
        images, labels = super().draw()
        return images, labels + 1


class ShortLabels(Stripes):
    def draw(self) -> tuple[Tensor, Tensor]:
        images, labels = super().draw()
        return images, labels.int()


class NotBinary(Stripes):
    def change(self, splits: Splits) -> Splits:
        return replace(splits, spec=replace(splits.spec, domain="binary"))


class AnotherEachTime(Stripes):
    def draw(self) -> tuple[Tensor, Tensor]:
        images, labels = super().draw()
        return images + next(_counter), labels


class Nameless(Stripes):
    def change(self, splits: Splits) -> Splits:
        return replace(splits, fingerprint="")


class TestsOnTraining(Stripes):
    def change(self, splits: Splits) -> Splits:
        return replace(splits, test=splits.train)


class NoValidation(Stripes):
    def change(self, splits: Splits) -> Splits:
        return replace(splits, validation=splits.test)


class Rambles(Stripes):
    def change(self, splits: Splits) -> Splits:
        return replace(splits, description="drawn\nat random")


class Mute(DataOptions):
    size: int = 3


class UndescribedData(Stripes):
    options: Mute


class OnDisk(Stripes):
    """Says that it reads a folder, and does not look."""

    options: DiskOptions


class OnDiskInLines(OnDisk):
    def load(self) -> Splits:
        if self.options.root is not None:
            raise DataError("no such\nfolder")
        return super().load()
