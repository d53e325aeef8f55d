"""Checks of what is registered, and of data sets: imports, options, examples, values, splits."""

from __future__ import annotations

import json
import subprocess
import sys

import torch
import yaml
from torch import Tensor

from vaezoo.data.base import Split
from vaezoo.data.loader import BatchLoader
from vaezoo.data.options import DiskOptions
from vaezoo.errors import DataError
from vaezoo.options import describe, format_value, parse, to_dict
from vaezoo.plugins.registry import registry
from vaezoo.testing.check import CheckFailed, CheckSkipped, Subject, check, fail_if
from vaezoo.testing.subjects import CPU, LoadedDataset

_WITHOUT_TORCH = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "numpy", "PIL"):
            raise ImportError(f"it imports {name}")

sys.meta_path.insert(0, Blocker())
import importlib
from vaezoo.plugins.loader import collect
for spec in collect(importlib.import_module(sys.argv[1])):
    spec.load_options()
"""


@check("put hooks and options into modules that do not import torch; give targets as strings")
def registration(subject: Subject) -> None:
    """Registering it and reading its options imports no torch"""
    known, spec = registry(), subject.spec
    if spec not in known.specs(spec.kind):
        raise CheckSkipped("no plugin registers it")
    plugin = known.plugin(spec)
    if not plugin.is_installed:
        raise CheckSkipped("its plugin is not installed")
    command = [sys.executable, "-c", _WITHOUT_TORCH, plugin.module]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise CheckFailed(f"{plugin.module}: {done.stderr.strip().splitlines()[-1]}")


@check("give each option a default, a description and a type for YAML and the command line")
def options(subject: Subject) -> None:
    """Options can be written as YAML and as text and read again, and have descriptions"""
    for what, options in subject.options.items():
        for info in describe(type(options)):
            fail_if(not info.help, f"{what}: option {info.name} has no description")
        plain = to_dict(options)
        read = yaml.safe_load(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
        as_text = {name: format_value(value) for name, value in plain.items()}
        for how, values in (("YAML", read), ("text", as_text)):
            back = parse(type(options), values, what)
            for name in type(options).model_fields:
                a, b = getattr(options, name), getattr(back, name)
                fail_if(a != b, f"{what}: option {name} is {a!r}, but read from {how} it is {b!r}")


_SAMPLED = 256
_COMPARED = 5_000


@check("give get_batch() examples of `spec.shape`, uint8 or float32, and class numbers or None")
def examples(data: LoadedDataset) -> None:
    """Examples have the shape, type and classes of the spec"""
    spec, count = data.splits.spec, len(data.splits.train)
    wrong = spec.num_examples != count
    fail_if(wrong, f"spec.num_examples is {spec.num_examples}, but there are {count}")
    declared = data.spec.shape or spec.shape
    fail_if(declared != spec.shape, f"its spec says shape {declared}, and it has {spec.shape}")
    for name, split in data.parts().items():
        fail_if(not len(split), f"the {name} split is empty")
        index = _some(split, _SAMPLED)
        x, y = split.get_batch(index)
        shape = (len(index), *spec.shape)
        fail_if(x.shape != shape, f"{name}: get_batch gives {tuple(x.shape)}, not {shape}")
        known = x.dtype in (torch.uint8, torch.float32)
        fail_if(not known, f"{name}: get_batch gives {x.dtype}, not uint8 or float32")
        wrong = x.dtype == torch.float32 and spec.is_bounded
        fail_if(wrong, f"{name}: {spec.domain} data must be uint8, not float32")
        fail_if(not x.float().isfinite().all(), f"{name}: an example is not finite")
        _check_labels(name, y, len(index), spec.class_names)
        one = split.get_batch(index[-1:])[0]
        fail_if(not one.equal(x[-1:]), f"{name}: an example is different when taken alone")


@check("scale values to [0, 1]: uint8 levels, or only 0 and 1 if the domain is binary")
def values(data: LoadedDataset) -> None:
    """Batches have values of the domain"""
    domain, binarize = data.splits.spec.domain, data.data_options.binarize
    for name, split in data.parts().items():
        size = max(1, min(32, len(split) - 1))
        batches = BatchLoader(split, batch_size=size, device=CPU, binarize=binarize)
        x = next(iter(batches.sequential())).x
        fail_if(x.dtype != torch.float32, f"{name}: a batch is {x.dtype}")
        wrong = domain == "binary" and not ((x == 0) | (x == 1)).all()
        fail_if(wrong, f"{name}: the domain is binary, and a value is neither 0 nor 1")
        wrong = domain == "unit" and not ((x >= 0) & (x <= 1)).all()
        fail_if(wrong, f"{name}: a value is outside [0, 1]")
        wrong = domain == "count" and not ((x >= 0) & (x == x.round())).all()
        fail_if(wrong, f"{name}: the domain is count, and a value is no whole number from 0")


@check("follow a seed in the options, and fingerprint what the splits hold")
def repeatable(data: LoadedDataset) -> None:
    """Loaded again, the data set has the same content and fingerprint"""
    again = data.load()
    fail_if(not data.splits.fingerprint, "it has no fingerprint")
    fail_if(again.fingerprint != data.splits.fingerprint, "its fingerprint changes each time")
    for name, split in data.parts().items():
        other: Split = getattr(again, name)
        index = _some(split, _SAMPLED)
        same = len(other) == len(split)
        same = same and other.get_batch(index)[0].equal(split.get_batch(index)[0])
        fail_if(not same, f"the {name} split changes each time")


@check("split off the test examples first")
def disjoint(data: LoadedDataset) -> None:
    """Test and validation examples are not in the train split"""
    train = {*_contents(data.splits.train, _COMPARED)}
    share = min(1.0, _COMPARED / len(data.splits.train))
    for name in ("test", "validation"):
        held_out = _contents(data.parts()[name], _SAMPLED)
        both = sum(content in train for content in held_out)
        # Real data contains some pictures twice.
        wrong = both > max(1, 0.2 * share * len(held_out))
        fail_if(wrong, f"{both} of {len(held_out)} {name} examples are also in the train split")


@check("take `options.validation` examples from the train split")
def validation(data: LoadedDataset) -> None:
    """The validation split has the requested size"""
    train, test = len(data.splits.train), len(data.splits.test)
    count = max(1, train // 10)
    if train <= 2 * count or data.data_options.validation:
        raise CheckSkipped("it is too small, or has a validation split already")
    splits = data.load(validation=count)
    found = len(splits.validation)
    fail_if(found != count, f"requested are {count} examples, there are {found}")
    moved = len(splits.train) == train - count and len(splits.test) == test
    fail_if(not moved, "they are not taken from the training examples")


@check("give Splits only plain numbers and texts")
def record(data: LoadedDataset) -> None:
    """The record for a run folder is JSON, and describes the splits in one line"""
    splits = data.splits
    fail_if(not splits.description or "\n" in splits.description, "`description` is not one line")
    kept = splits.record()
    same = json.loads(json.dumps(kept))["splits"] == kept["splits"]
    fail_if(not same, "its record is not the same after JSON")


@check("raise DataError that says what is missing and what to do")
def missing(data: LoadedDataset) -> None:
    """Missing data raises DataError with one line"""
    if not isinstance(data.data_options, DiskOptions):
        raise CheckSkipped("it reads nothing from disk")
    try:
        data.load(root="/there/is/no/such/place")
    except DataError as error:
        fail_if("\n" in str(error), "the error has several lines")
    else:
        raise CheckFailed("a root that does not exist raises no DataError")


def _some(split: Split, most: int) -> Tensor:
    """Indices of examples, evenly over a split."""
    return torch.linspace(0, len(split) - 1, min(most, len(split))).long()


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
    found = f"{name}: labels are {y.dtype} {tuple(y.shape)}"
    fail_if(y.dtype != torch.int64 or y.shape != (count,), f"{found}, not int64 ({count},)")
    low, high = int(y.min()), int(y.max())
    fail_if(low < -1 or high >= max(1, len(classes)), f"{name}: labels go from {low} to {high}")
