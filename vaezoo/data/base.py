"""Interfaces of data: Batch, Split, Splits and BaseDataset."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from vaezoo.data.options import DataOptions, DecodeOptions
from vaezoo.data.spec import DataSpec, Domain
from vaezoo.errors import DataError


class Split(ABC):
    """Examples by index. Values are uint8 levels of grey (0 to 255), or float32 for real data."""

    @abstractmethod
    def __len__(self) -> int:
        """How many examples there are."""

    @abstractmethod
    def get_batch(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Examples [n, *shape], uint8 or float32, and class numbers [n] (-1 unknown) or None.

        index: int64 [n]. Index and examples are on `self.device`.
        """

    @property
    def device(self) -> torch.device:
        """Where `get_batch` gives its examples."""
        return torch.device("cpu")

    def factors(self, index: Tensor) -> Tensor | None:
        """The factors of variation of these examples, int64 [n, factors], where they are known."""
        return None

    def to(self, device: torch.device) -> Split:
        """This split with its examples on a device, or itself where they cannot go there."""
        return self


class TensorSplit(Split):
    """Examples that lie decoded in one tensor, in memory or memory-mapped.

    images: [n, *shape], uint8 or float32. labels: int64 [n] or None.
    index: which of the images belong to this split, all of them when None.
    """

    def __init__(
        self, images: Tensor, labels: Tensor | None = None, index: Tensor | None = None
    ) -> None:
        if labels is not None and len(labels) != len(images):
            raise DataError(f"{len(images)} examples have {len(labels)} labels")
        self.images = images
        self.labels = labels
        self.index = index

    def __len__(self) -> int:
        return len(self.images) if self.index is None else len(self.index)

    def get_batch(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        where = index if self.index is None else self.index[index]
        return self.images[where], None if self.labels is None else self.labels[where]

    @property
    def device(self) -> torch.device:
        return self.images.device

    def to(self, device: torch.device) -> Split:
        """On the device as a whole, compacted, if it takes no more than half of the free memory."""
        if device.type != "cuda":
            return self
        count = len(self) * self.images[:1].nbytes
        free, _ = torch.cuda.mem_get_info(device)
        if count > free // 2:
            return self
        images, labels = self.get_batch(torch.arange(len(self)))
        return TensorSplit(images.to(device), None if labels is None else labels.to(device))


@dataclass(frozen=True)
class Splits:
    """A loaded data set.

    validation is what training is watched by; where none was held out it is the test split.
    description: one line that says how the splits were made. skipped: (file, reason) of what was
    left out.
    factor_names: names of the factors of variation, empty where they are unknown.
    """

    spec: DataSpec
    train: Split
    validation: Split
    test: Split
    description: str
    skipped: Sequence[tuple[str, str]] = ()
    factor_names: tuple[str, ...] = ()
    fingerprint: str = field(default="")

    def record(self) -> dict[str, Any]:
        """What the run folder keeps of the data."""
        return {
            "spec": self.spec.to_dict(),
            "splits": {
                "train": len(self.train),
                "validation": len(self.validation),
                "test": len(self.test),
            },
            "description": self.description,
            "fingerprint": self.fingerprint,
            "skipped": [list(item) for item in self.skipped],
            "factor_names": list(self.factor_names),
        }


class BaseDataset(ABC):
    """A data set, built from its typed options; `load` reads it."""

    expected_failures: ClassVar[Mapping[str, str]] = {}
    """Checks of vaezoo.testing that it does not pass: name -> why that is as it should be."""

    def __init__(self, options: DataOptions) -> None:
        self.options = options

    @abstractmethod
    def load(self) -> Splits:
        """Read, decode once, and split. DataError says in one line what is missing or wrong."""

    def read_images(self, paths: Sequence[Path], spec: DataSpec) -> Tensor:
        """Image files as this data set would have them: uint8 [n, *spec.shape]."""
        from vaezoo.data.decode import decode_image  # Pillow, needed here alone

        if not spec.is_image:
            raise DataError("this data set has vectors, not images")
        shape = (spec.channels, spec.height, spec.width)
        options: object = self.options
        how = options if isinstance(options, DecodeOptions) else DecodeOptions()
        return torch.stack([torch.tensor(decode_image(path, shape, how)) for path in paths])


def domain_of(options: DataOptions) -> Domain:
    """The domain of 8-bit images under these options: binarized ones are binary."""
    return "unit" if options.binarize == "none" else "binary"


def random_split(
    count: int, test: int, validation: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Disjoint random index sets (train, validation, test) of `count` examples, sorted each."""
    if test + validation >= count:
        raise DataError(
            f"{count} examples cannot give {test} for testing and {validation} for validation "
            "and leave any to train on"
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    held_out, rest = order[:test], order[test:]
    return rest[validation:].sort()[0], rest[:validation].sort()[0], held_out.sort()[0]


class Batch(NamedTuple):
    """x: [batch, *shape], float in [0, 1] (any number for real data). y: class numbers or None."""

    x: Tensor
    y: Tensor | None = None
