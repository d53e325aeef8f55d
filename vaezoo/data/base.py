"""The interfaces of data: Batch, Split, Splits and BaseDataset."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from vaezoo.data.options import DataOptions, DecodeOptions
from vaezoo.data.spec import DataSpec, DataStatistics, Domain
from vaezoo.errors import DataError

_PIECE = 1 << 20
"""Values whose statistics are computed at once."""


class Split(ABC):
    """Examples by index, as uint8 levels (0 to 255), or as float32 for real data and counts."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of examples."""

    @abstractmethod
    def get_batch(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Get examples [n, *shape], uint8 or float32, and class numbers [n] (-1: unknown) or None.

        index: int64 [n]. The index and the examples are on `self.device`.
        """

    @property
    def device(self) -> torch.device:
        """The device of the examples that `get_batch` returns."""
        return torch.device("cpu")

    def factors(self, index: Tensor) -> Tensor | None:
        """Get the factors of variation, int64 [n, factors], or None where they are not known."""
        return None

    def names(self, index: Tensor) -> list[str] | None:
        """Get the names of the files of examples, int64 [n], or None where they have none."""
        return None

    def to(self, device: torch.device) -> Split:
        """Move the examples to a device; the same split if that is not possible."""
        return self


class TensorSplit(Split):
    """Decoded examples in one tensor, in memory or memory-mapped.

    images: [n, *shape], uint8 or float32. labels: int64 [n] or None. factors: int64 [n, factors] or
    None.
    index: positions of the images that belong to this split; all of them when None.
    files: the names of the files of all images; empty where they have none.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        index: Tensor | None = None,
        factors: Tensor | None = None,
        files: Sequence[str] = (),
    ) -> None:
        for what, values in (("labels", labels), ("factors", factors)):
            if values is not None and len(values) != len(images):
                raise DataError(f"{len(images)} examples have {len(values)} {what}")
        self.images = images
        self.labels = labels
        self.index = index
        self.factor_values = factors
        self.files = files

    def __len__(self) -> int:
        return len(self.images) if self.index is None else len(self.index)

    def get_batch(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        rows = index if self.index is None else self.index[index]
        return self.images[rows], None if self.labels is None else self.labels[rows]

    def factors(self, index: Tensor) -> Tensor | None:
        if self.factor_values is None:
            return None
        return self.factor_values[index if self.index is None else self.index[index]]

    def names(self, index: Tensor) -> list[str] | None:
        rows = (index if self.index is None else self.index[index]).tolist()
        return [self.files[row] for row in rows] if self.files else None

    @property
    def device(self) -> torch.device:
        return self.images.device

    def to(self, device: torch.device) -> Split:
        """Copy this split to a CUDA device if it needs at most half of the free memory there."""
        if device.type != "cuda":
            return self
        count = len(self) * self.images[:1].nbytes
        free, _ = torch.cuda.mem_get_info(device)
        if count > free // 2:
            return self
        everything = torch.arange(len(self))
        parts = (*self.get_batch(everything), self.factors(everything))
        images, labels, factors = (None if part is None else part.to(device) for part in parts)
        assert images is not None
        return TensorSplit(images, labels, factors=factors)


@dataclass(frozen=True)
class Splits:
    """A loaded data set: its specification and its three splits.

    validation: monitors training; it is the test split if nothing was held out.
    description: one line that says how the splits were made.
    skipped: (file, reason) of each file that was left out.
    notes: lines about what was left out or may be meant in another way, with the option for it.
    factor_names: names of the factors of variation, empty if they are unknown.
    column_names: names of the values of a vector, empty if they have none.
    fingerprint: a hash of what the splits hold; a run refuses data with another one.
    """

    spec: DataSpec
    train: Split
    validation: Split
    test: Split
    description: str
    skipped: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    factor_names: tuple[str, ...] = ()
    column_names: tuple[str, ...] = ()
    fingerprint: str = field(default="")

    def __repr__(self) -> str:
        """The data in one line."""
        counts = (f"{len(getattr(self, s)):,} {s}" for s in ("train", "validation", "test"))
        return f"Splits of {self.spec.domain} {self.spec.describe()}: {', '.join(counts)}"

    def record(self) -> dict[str, Any]:
        """The metadata that run.json keeps."""
        return {
            "spec": self.spec.to_dict(),
            "splits": {s: len(getattr(self, s)) for s in ("train", "validation", "test")},
            "description": self.description,
            "fingerprint": self.fingerprint,
            "skipped": [list(item) for item in self.skipped],
            "notes": list(self.notes),
            "factor_names": list(self.factor_names),
            "column_names": list(self.column_names),
        }


class GivenData(NamedTuple):
    """Data that a caller gives from Python, as in `vaezoo.train(data=...)`.

    data: an object of a type that the DatasetSpec accepts. labels, factors: of each example, as the
    caller gives them; None if they are not given. factor_names: of the columns of the factors.
    """

    data: Any
    labels: Any = None
    factors: Any = None
    factor_names: Sequence[str] = ()

    @property
    def type_name(self) -> str:
        """The type of the data, as run.json keeps it: "numpy.ndarray"."""
        return f"{type(self.data).__module__}.{type(self.data).__qualname__}"


class BaseDataset(ABC):
    """A data set, built from its typed options; `load` reads it."""

    expected_failures: ClassVar[Mapping[str, str]] = {}
    """Checks of vaezoo.testing that fail for a good reason: name -> reason."""

    def __init__(self, options: DataOptions) -> None:
        self.options = options

    @abstractmethod
    def load(self) -> Splits:
        """Read, decode and split the data. DataError says in one line what is missing or wrong."""

    def load_object(self, given: GivenData) -> Splits:
        """Split an object of a type that the `accepts` of its spec names. DataError as `load`."""
        raise DataError("this data set reads its own files: name it, and give no object")

    def read_images(self, paths: Sequence[Path], spec: DataSpec) -> Tensor:
        """Decode image files in the format of this data set: uint8 [n, *spec.shape]."""
        from vaezoo.data.decode import decode_image  # imports Pillow

        if not spec.is_image:
            raise DataError(
                f"this data set has {spec.describe()}, not images: "
                "give the number of a test example"
            )
        shape = (spec.channels, spec.height, spec.width)
        given: object = self.options
        options = given if isinstance(given, DecodeOptions) else DecodeOptions()
        return torch.stack([torch.tensor(decode_image(path, shape, options)) for path in paths])


def load_splits(dataset: BaseDataset, given: GivenData | None = None) -> Splits:
    """Load a data set, or what is given in its place.

    With statistics of its training examples unless its values are in [0, 1].
    """
    splits = dataset.load() if given is None else dataset.load_object(given)
    spec = splits.spec
    if spec.is_bounded or spec.statistics is not None:
        return splits
    statistics = compute_statistics(splits.train)
    if spec.domain == "count" or getattr(dataset.options, "standardize", "auto") == "off":
        count = len(statistics.mean)
        statistics = replace(statistics, mean=(0.0,) * count, std=(1.0,) * count)
    return replace(splits, spec=replace(spec, statistics=statistics))


class Standardizer(nn.Module):
    """Standardise examples, [n, *shape], by the statistics of the data; `inverse` undoes it.

    Without statistics nothing changes.
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        for name in ("mean", "std"):
            values: Sequence[float] | None = getattr(spec.statistics, name, None)
            shape = (-1, *[1] * (len(spec.shape) - 1))
            shaped = None if values is None else torch.tensor(values).view(shape)
            self.register_buffer(name, shaped, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x if self.mean is None or self.std is None else (x - self.mean) / self.std

    def inverse(self, x: Tensor) -> Tensor:
        return x if self.mean is None or self.std is None else x * self.std + self.mean


def check_examples(x: Any, spec: DataSpec) -> Tensor:
    """Check examples that a caller gives, a tensor or an array, [n, *shape]; as float32.

    DataError, in one line, unless they have the shape and the range of the data.
    """
    try:
        given = torch.as_tensor(x)
    except (TypeError, ValueError, RuntimeError):
        raise DataError(
            f"examples are given as a tensor or an array of numbers, not as {type(x).__name__}"
        ) from None
    shape, expected = tuple(given.shape), "×".join(map(str, ("n", *spec.shape)))
    if shape[1:] != spec.shape:
        advice = ""
        if shape == spec.shape:
            advice = ": one example is x[None]"
        elif spec.ndim and shape[1:] == (*spec.shape[1:], spec.channels):
            advice = ": the channels come first"
        found = "×".join(map(str, shape)) or "one number"
        raise DataError(f"examples of this data are {expected}, not {found}{advice}")
    if given.is_complex():
        raise DataError("examples are real numbers, not complex ones")
    values = given.float()
    if not values.isfinite().all():
        raise DataError("examples hold NaN or infinity")
    if spec.domain == "count" and not ((values >= 0) & (values == values.round())).all():
        raise DataError("values of this data are counts: whole numbers from 0")
    if spec.is_bounded and len(values) and not 0 <= values.min() <= values.max() <= 1:
        low, high = float(values.min()), float(values.max())
        advice = ": divide 8-bit levels by 255" if low >= 0 and 1 < high <= 255 else ""
        raise DataError(f"values of this data are in [0, 1], not {low:g} to {high:g}{advice}")
    return values


def compute_statistics(split: Split) -> DataStatistics:
    """Compute the statistics of all examples of a split, in float64.

    The standard deviation of a channel or value that never changes is taken as 1.
    """
    count, mean, squares = 0, torch.zeros(()), torch.zeros(())
    low, high = torch.tensor(math.inf), torch.tensor(-math.inf)
    step = max(1, _PIECE // split.get_batch(torch.arange(1))[0].numel())
    for index in torch.arange(len(split)).split(step):
        values = split.get_batch(index)[0].double().transpose(0, 1).flatten(1)
        new, new_mean = values.shape[1], values.mean(1)
        change, total = new_mean - mean, count + new
        # Chan, Golub & LeVeque 1983: a mean and a sum of squares of two parts together.
        squares = squares + (values - new_mean[:, None]).square().sum(1)
        squares = squares + change.square() * (count * new / total)
        mean, count = mean + change * (new / total), total
        low, high = torch.minimum(low, values.amin(1)), torch.maximum(high, values.amax(1))
    std = (squares / count).sqrt()
    # Not where it is 0: rounding gives equal values a small one.
    std = torch.where((high > low) & (std > 0), std, torch.ones_like(std))
    return DataStatistics(
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        minimum=float(low.min()),
        maximum=float(high.max()),
    )


def domain_of(options: DataOptions) -> Domain:
    """Get the domain of 8-bit images under these options: binary if they are binarized."""
    return "unit" if options.binarize == "none" else "binary"


def make_splits(
    options: DataOptions,
    images: Tensor,
    labels: Tensor | None,
    indices: Sequence[Tensor],
    *,
    description: str,
    fingerprint: str,
    class_names: Sequence[str] = (),
    skipped: Sequence[tuple[str, str]] = (),
    notes: Sequence[str] = (),
    files: Sequence[str] = (),
) -> Splits:
    """Make the splits of 8-bit images that lie in one tensor.

    images: uint8 [n, *shape]. labels: int64 [n] or None. indices: int64 positions of the training,
    validation and test examples. If there are none for validation, the test split is used.
    files: the name of each image, empty where they have none.
    """
    train, validation, test = (TensorSplit(images, labels, index, files=files) for index in indices)
    return Splits(
        spec=DataSpec(
            shape=tuple(images.shape[1:]),
            domain=domain_of(options),
            class_names=tuple(class_names),
            num_examples=len(train),
        ),
        train=train,
        validation=validation if len(validation) else test,
        test=test,
        description=description,
        skipped=skipped,
        notes=notes,
        fingerprint=fingerprint,
    )


def random_split(
    count: int, test: int, validation: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw disjoint sorted index sets (train, validation, test) of `count` examples."""
    if test + validation >= count:
        raise DataError(
            f"{count} examples cannot give {test} for testing and {validation} for validation "
            "and leave any to train on"
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    held_out, rest = order[:test], order[test:]
    return rest[validation:].sort()[0], rest[:validation].sort()[0], held_out.sort()[0]


def hash_examples(images: Tensor, labels: Tensor | None) -> bytes:
    """Compute the sha256 of the shape, type and values of images and of their labels."""
    digest = hashlib.sha256(repr((tuple(images.shape), str(images.dtype))).encode())
    for tensor in (images,) if labels is None else (images, labels):
        digest.update(tensor.contiguous().numpy().data)
    return digest.digest()


def hash_content(*parts: bytes | Tensor | None) -> str:
    """Compute a fingerprint: the sha256 of bytes and of whole numbers, [n] or None, in order."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, bytes):
            digest.update(part)
            continue
        text = b"none" if part is None else part.numpy().astype("<i8").tobytes()
        digest.update(len(text).to_bytes(8, "little") + text)
    return digest.hexdigest()


class Batch(NamedTuple):
    """A batch of examples and their classes.

    x: [batch, *shape], float in [0, 1], standardised if the data is real-valued, or counts. y:
    class numbers or None.
    """

    x: Tensor
    y: Tensor | None = None
