"""A data set says what it holds, holds it, and holds the same each time."""

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

_LOOKED_AT = 256
_COMPARED = 5_000


@check("give get_batch() examples of `spec.shape`, uint8 or float32, and class numbers or None")
def examples(data: LoadedDataset) -> None:
    """Examples are of the shape, type and classes that the spec says"""
    spec = data.splits.spec
    if spec.num_examples != len(data.splits.train):
        raise CheckFailed(
            f"spec.num_examples is {spec.num_examples}, and there are {len(data.splits.train)}"
        )
    for name, split in data.parts().items():
        fail_if(not len(split), f"the {name} split is empty")
        index = _some(split, _LOOKED_AT)
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
        fail_if(not one.equal(x[-1:]), f"{name}: an example taken alone is another one")


@check("bring values into [0, 1]: uint8 levels, or 0 and 1 where the domain is binary")
def values(data: LoadedDataset) -> None:
    """Batches have values of the domain, and the last one may be short"""
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
    """Loaded again it is the same, and says so by its fingerprint"""
    again = data.load()
    fail_if(not data.splits.fingerprint, "it has no fingerprint")
    if again.fingerprint != data.splits.fingerprint:
        raise CheckFailed("its fingerprint is another one each time")
    for name, split in data.parts().items():
        other: Split = getattr(again, name)
        index = _some(split, _LOOKED_AT)
        if len(other) != len(split) or not other.get_batch(index)[0].equal(
            split.get_batch(index)[0]
        ):
            raise CheckFailed(f"the {name} split is another one each time")


@check("hold test examples out before anything else is done with them")
def disjoint(data: LoadedDataset) -> None:
    """Examples to test with are not among those to train on"""
    train = {*_contents(data.splits.train, _COMPARED)}
    share = min(1.0, _COMPARED / len(data.splits.train))
    for name in ("test", "validation"):
        held_out = _contents(data.parts()[name], _LOOKED_AT)
        both = sum(content in train for content in held_out)
        # Real data holds a picture twice now and then.
        if both > max(1, 0.2 * share * len(held_out)):
            raise CheckFailed(
                f"{both} of {len(held_out)} {name} examples are also in the train split"
            )


@check("hold out `options.validation` examples of those to train on")
def validation(data: LoadedDataset) -> None:
    """As many examples are held out for validation as are asked for"""
    whole = data.splits
    count = max(1, len(whole.train) // 10)
    if len(whole.train) <= 2 * count or data.options.validation:
        raise CheckSkipped("it is too small, or holds some out already")
    splits = data.load(validation=count)
    if len(splits.validation) != count:
        raise CheckFailed(f"asked for {count}, it holds {len(splits.validation)} out")
    if len(splits.train) != len(whole.train) - count or len(splits.test) != len(whole.test):
        raise CheckFailed("they are not taken from the training examples")


@check("give Splits plain numbers and words")
def record(data: LoadedDataset) -> None:
    """What a run folder keeps of it is JSON, and says in one line how the splits came about"""
    splits = data.splits
    fail_if(not splits.description or "\n" in splits.description, "`description` is not one line")
    kept = splits.record()
    if json.loads(json.dumps(kept))["splits"] != kept["splits"]:
        raise CheckFailed("its record does not come back from JSON")


@check("raise DataError with what is missing and what to do")
def missing(data: LoadedDataset) -> None:
    """Data that is not there is told in one line"""
    if not isinstance(data.options, DiskOptions):
        raise CheckSkipped("it reads nothing from disk")
    try:
        data.load(root="/there/is/no/such/place")
    except DataError as error:
        if "\n" in str(error):
            raise CheckFailed("it is told in several lines") from None
    else:
        raise CheckFailed("a root that does not exist is not noticed")


@check("give each option a default, a description, and a type that YAML and a command line know")
def options(data: LoadedDataset) -> None:
    """Options come back from YAML and from text, and each one is described"""
    check_options(data.options, f"data set {data.name}")


@check("keep hooks and options in modules that import no torch, targets as strings")
def registration(data: LoadedDataset) -> None:
    """Registering it and reading its options imports no torch"""
    check_registration(data.spec)


def _some(split: Split, most: int) -> Tensor:
    """Numbers of examples, spread over a split."""
    count = min(most, len(split))
    return torch.linspace(0, len(split) - 1, count).long()


def _contents(split: Split, most: int) -> list[bytes]:
    """Some examples as bytes."""
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
