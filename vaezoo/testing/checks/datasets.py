"""Checks of data sets: examples, values, splits, and the same content each time."""

from __future__ import annotations

import json

import torch
from torch import Tensor

from vaezoo.data.base import Split
from vaezoo.data.loader import BatchLoader
from vaezoo.data.options import DiskOptions
from vaezoo.errors import DataError
from vaezoo.testing.check import CheckFailed, CheckSkipped, check, fail_if
from vaezoo.testing.checks.registration import check_options, check_registration
from vaezoo.testing.subjects import LoadedDataset

_SAMPLED = 256
_COMPARED = 5_000


@check("give get_batch() examples of `spec.shape`, uint8 or float32, and class numbers or None")
def examples(data: LoadedDataset) -> None:
    """Examples have the shape, type and classes of the spec"""
    spec = data.splits.spec
    if spec.num_examples != len(data.splits.train):
        raise CheckFailed(
            f"spec.num_examples is {spec.num_examples}, but there are {len(data.splits.train)}"
        )
    for name, split in data.parts().items():
        fail_if(not len(split), f"the {name} split is empty")
        index = _some(split, _SAMPLED)
        x, y = split.get_batch(index)
        if tuple(x.shape) != (len(index), *spec.shape):
            raise CheckFailed(
                f"{name}: get_batch gives {tuple(x.shape)}, not {(len(index), *spec.shape)}"
            )
        if x.dtype not in (torch.uint8, torch.float32):
            raise CheckFailed(f"{name}: get_batch gives {x.dtype}, not uint8 or float32")
        if x.dtype == torch.float32 and spec.domain != "real":
            raise CheckFailed(f"{name}: {spec.domain} data must be uint8, not float32")
        fail_if(not x.float().isfinite().all(), f"{name}: an example is not finite")
        _check_labels(name, y, len(index), spec.class_names)
        one = split.get_batch(index[-1:])[0]
        fail_if(not one.equal(x[-1:]), f"{name}: an example is different when taken alone")


@check("scale values to [0, 1]: uint8 levels, or only 0 and 1 if the domain is binary")
def values(data: LoadedDataset) -> None:
    """Batches have values of the domain"""
    spec = data.splits.spec
    for name, split in data.parts().items():
        batches = BatchLoader(
            split,
            batch_size=max(1, min(32, len(split) - 1)),
            device=torch.device("cpu"),
            binarize=data.options.binarize,
        )
        x = next(iter(batches.sequential())).x
        fail_if(x.dtype != torch.float32, f"{name}: a batch is {x.dtype}")
        if spec.domain == "binary" and not ((x == 0) | (x == 1)).all():
            raise CheckFailed(f"{name}: the domain is binary, and a value is neither 0 nor 1")
        if spec.domain == "unit" and not ((x >= 0) & (x <= 1)).all():
            raise CheckFailed(f"{name}: a value is outside [0, 1]")


@check("follow a seed in the options, and fingerprint what the splits hold")
def repeatable(data: LoadedDataset) -> None:
    """Loaded again, the data set has the same content and fingerprint"""
    again = data.load()
    fail_if(not data.splits.fingerprint, "it has no fingerprint")
    if again.fingerprint != data.splits.fingerprint:
        raise CheckFailed("its fingerprint changes each time")
    for name, split in data.parts().items():
        other: Split = getattr(again, name)
        index = _some(split, _SAMPLED)
        if len(other) != len(split) or not other.get_batch(index)[0].equal(
            split.get_batch(index)[0]
        ):
            raise CheckFailed(f"the {name} split changes each time")


@check("split off the test examples first")
def disjoint(data: LoadedDataset) -> None:
    """Test and validation examples are not in the train split"""
    train = {*_contents(data.splits.train, _COMPARED)}
    share = min(1.0, _COMPARED / len(data.splits.train))
    for name in ("test", "validation"):
        held_out = _contents(data.parts()[name], _SAMPLED)
        both = sum(content in train for content in held_out)
        # Real data contains some pictures twice.
        if both > max(1, 0.2 * share * len(held_out)):
            raise CheckFailed(
                f"{both} of {len(held_out)} {name} examples are also in the train split"
            )


@check("take `options.validation` examples from the train split")
def validation(data: LoadedDataset) -> None:
    """The validation split has the requested size"""
    whole = data.splits
    count = max(1, len(whole.train) // 10)
    if len(whole.train) <= 2 * count or data.options.validation:
        raise CheckSkipped("it is too small, or has a validation split already")
    splits = data.load(validation=count)
    if len(splits.validation) != count:
        raise CheckFailed(f"requested are {count} examples, there are {len(splits.validation)}")
    if len(splits.train) != len(whole.train) - count or len(splits.test) != len(whole.test):
        raise CheckFailed("they are not taken from the training examples")


@check("give Splits only plain numbers and texts")
def record(data: LoadedDataset) -> None:
    """The record for a run folder is JSON, and describes the splits in one line"""
    splits = data.splits
    fail_if(not splits.description or "\n" in splits.description, "`description` is not one line")
    kept = splits.record()
    if json.loads(json.dumps(kept))["splits"] != kept["splits"]:
        raise CheckFailed("its record is not the same after JSON")


@check("raise DataError that says what is missing and what to do")
def missing(data: LoadedDataset) -> None:
    """Missing data raises DataError with one line"""
    if not isinstance(data.options, DiskOptions):
        raise CheckSkipped("it reads nothing from disk")
    try:
        data.load(root="/there/is/no/such/place")
    except DataError as error:
        if "\n" in str(error):
            raise CheckFailed("the error has several lines") from None
    else:
        raise CheckFailed("a root that does not exist raises no DataError")


@check(
    "give each option a default, a description, and a type that YAML and the command line support"
)
def options(data: LoadedDataset) -> None:
    """Options can be written as YAML and as text and read again, and have descriptions"""
    check_options(data.options, f"data set {data.name}")


@check("put hooks and options into modules that do not import torch; give targets as strings")
def registration(data: LoadedDataset) -> None:
    """Registering it and reading its options imports no torch"""
    check_registration(data.spec)


def _some(split: Split, most: int) -> Tensor:
    """Indices of examples, evenly over a split."""
    count = min(most, len(split))
    return torch.linspace(0, len(split) - 1, count).long()


def _contents(split: Split, most: int) -> list[bytes]:
    """Some examples as bytes, evenly over a split."""
    return [
        example.numpy().tobytes()
        for index in _some(split, most).split(512)
        for example in split.get_batch(index)[0]
    ]


def _check_labels(name: str, y: Tensor | None, count: int, classes: tuple[str, ...]) -> None:
    if y is None:
        fail_if(classes, f"{name}: there are classes, and no labels")
        return
    if y.dtype != torch.int64 or tuple(y.shape) != (count,):
        raise CheckFailed(f"{name}: labels are {y.dtype} {tuple(y.shape)}, not int64 ({count},)")
    if y.min() < -1 or y.max() >= max(1, len(classes)):
        raise CheckFailed(f"{name}: labels go from {int(y.min())} to {int(y.max())}")
