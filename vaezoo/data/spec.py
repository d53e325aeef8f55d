"""DataSpec, the shape and kind of the data that a model is built for. It imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Domain = Literal["binary", "unit", "real", "count"]
"""binary: 0 or 1. unit: 256 levels in [0, 1]. real: any number. count: whole numbers from 0."""

NAMES = ("vectors", "signals", "images", "volumes")
"""What examples are called, by their number of spatial dimensions."""

MAX_VALUES = 1 << 28
"""The most values of one example that a file may declare: a gigabyte of 32-bit floats."""


@dataclass(frozen=True, kw_only=True)
class DataStatistics:
    """Statistics of the training examples of real numbers or counts, in the data's units.

    mean, std: what standardises the values: a number for each channel, or for each value of a
        vector; 0 and 1 if they are not standardised. std is never 0.
    minimum, maximum: of all values.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    minimum: float
    maximum: float

    @classmethod
    def from_dict(cls, values: Any, count: int) -> DataStatistics:
        """Make them from a dictionary, with `count` means; ValueError for anything else."""
        try:
            mean, std = (tuple(map(float, values[name])) for name in ("mean", "std"))
            low, high = (float(values[name]) for name in ("minimum", "maximum"))
        except (KeyError, TypeError, ValueError, OverflowError):
            raise ValueError("its statistics are not numbers") from None
        finite = all(map(math.isfinite, (*mean, *std, low, high)))
        if not finite or {len(mean), len(std)} != {count} or min(std) <= 0:
            raise ValueError(f"its statistics are not {count} means and deviations above 0")
        return cls(mean=mean, std=std, minimum=low, maximum=high)


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """The shape and the kind of the data.

    shape: (values,) of a vector, (channels, length) of a signal, (channels, height, width) of an
        image, or (channels, depth, height, width) of a volume.
    domain: what the values are; the default likelihood follows from it.
    class_names: the names of the classes, empty when there are no labels.
    num_examples: the number of training examples (losses on batch statistics need it).
    statistics: of the training examples of unbounded data; real values are standardised by it.
    """

    shape: tuple[int, ...]
    domain: Domain = "unit"
    class_names: tuple[str, ...] = ()
    num_examples: int = 0
    statistics: DataStatistics | None = None

    def __post_init__(self) -> None:
        numbers = isinstance(self.shape, tuple) and all(isinstance(n, int) for n in self.shape)
        if not numbers or not 1 <= len(self.shape) <= len(NAMES) or min(self.shape) < 1:
            raise ValueError(
                f"shape {self.shape} is not (values,) or (channels, *sizes) with 1 to 3 sizes"
            )

    @property
    def channels(self) -> int:
        """The number of channels, or of values of a vector."""
        return self.shape[0]

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """The sizes after the channels: () of a vector, (height, width) of an image."""
        return self.shape[1:]

    @property
    def ndim(self) -> int:
        """The number of spatial dimensions: 0 of a vector, to 3 of a volume."""
        return len(self.spatial_shape)

    @property
    def is_image(self) -> bool:
        return self.ndim == 2

    @property
    def is_bounded(self) -> bool:
        """Whether values are in [0, 1]: neither real numbers nor counts."""
        return self.domain in ("binary", "unit")

    @property
    def height(self) -> int:
        """The rows of an image; ValueError for other data."""
        height, _ = self.spatial_shape
        return height

    @property
    def width(self) -> int:
        """The columns of an image; ValueError for other data."""
        _, width = self.spatial_shape
        return width

    def describe(self) -> str:
        """What an example is, in words: "images of 3×32×32", "vectors of 5 values"."""
        values = " values" if self.ndim == 0 else ""
        return f"{NAMES[self.ndim]} of {'×'.join(map(str, self.shape))}{values}"

    @property
    def numel(self) -> int:
        """The number of values of an example: the D of bits per dimension."""
        return math.prod(self.shape)

    @property
    def log_det(self) -> float:
        """Σ log std over an example's values, in nats; 0 if nothing is standardised.

        The log-density of an example is that of its standardised values minus this number.
        """
        if self.statistics is None:
            return 0.0
        return self.numel // self.shape[0] * math.fsum(map(math.log, self.statistics.std))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DataSpec:
        """Make a DataSpec from what `to_dict` returned; ValueError for anything else."""
        shape, classes = values.get("shape"), values.get("class_names")
        domain: Any = values.get("domain")
        examples = values.get("num_examples")
        if not isinstance(shape, list) or not all(type(n) is int for n in shape):
            raise ValueError("its shape is not a list of whole numbers")
        if not 1 <= len(shape) <= len(NAMES) or not 1 <= math.prod(shape) <= MAX_VALUES:
            raise ValueError(f"an example of it has no values, or more than {MAX_VALUES:,}")
        if domain not in get_args(Domain):
            raise ValueError("its domain is unknown")
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise ValueError("its class_names are not a list of names")
        if type(examples) is not int or examples < 0:
            raise ValueError("its num_examples is not a number from 0")
        statistics = values.get("statistics")
        return cls(
            shape=tuple(shape),
            domain=domain,
            class_names=tuple(classes),
            num_examples=examples,
            statistics=statistics and DataStatistics.from_dict(statistics, shape[0]),
        )
