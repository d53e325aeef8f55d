"""The data set `arrays`: arrays, tensors, torch Datasets and Splits that are given from Python."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset

from vaezoo import GivenData, Splits
from vaezoo.data.base import hash_examples
from vaezoo.errors import DataError, OptionError, printable
from vaezoo.runtime import report_progress
from vaezoo.runtime.memory import available_memory

from .conversion import Array, ArrayDataset, split_arrays
from .options import ArrayOptions

_READ_TWICE = 8
"""The first items of a Dataset are read again, to find random transforms."""

_REPORTED = 256
"""Items of a Dataset between two reports of progress."""


class ArraysDataset(ArrayDataset):
    """What `vaezoo.train(data=...)` gets as an array, a tensor, a torch Dataset or Splits.

    Arrays are taken as those in an .npz file are: see `split_arrays`. A Dataset is read once, item
    by item, into an array. Splits are used as they are.
    """

    def load(self) -> Splits:
        raise DataError(
            "the data set arrays is given from Python, by vaezoo.train(..., data=ARRAY): on the "
            "command line give --data npz --root FILE, a file that numpy.savez or numpy.save wrote"
        )

    def load_object(self, given: GivenData) -> Splits:
        if isinstance(given.data, Splits):
            return _check_splits(given, self.options)
        options, labels = self.options, given.labels
        names: tuple[str, ...] = ()
        if isinstance(given.data, Dataset):
            names = _class_names(given.data)
            values, own, layout = _read_items(given.data)
            if own is not None and labels is not None:
                raise DataError("labels: the items of the Dataset have labels already")
            labels = own if labels is None else labels
            if layout and options.layout == "auto":
                options = options.model_copy(update={"layout": layout})
        else:
            values = to_array("data", given.data)
        roles = {"train": ("data", values), **given_roles(given._replace(labels=labels))}
        return split_arrays(roles, options, class_names=names)


def given_roles(given: GivenData) -> dict[str, tuple[str, Array]]:
    """The labels and factors that are given, by their roles."""
    found = {}
    if given.labels is not None:
        found["train labels"] = "labels", to_array("labels", given.labels)
    if given.factors is not None:
        found["train factors"] = "factors", _columns_to_array(given.factors)
    names = given.factor_names or getattr(given.factors, "columns", ())
    if len(names):
        found["factor names"] = "factor_names", np.array([str(name) for name in names])
    return found


def to_array(name: str, values: Any) -> Array:
    """A numpy array of what a caller gives. DataError for what does not make one.

    name: what error messages call it. Objects that are all texts or all numbers become such.
    """
    try:
        if isinstance(values, Tensor):
            if values.layout != torch.strided:
                raise DataError(f"{name} is a sparse tensor: give {name}.to_dense()")
            values = values.detach().cpu()
            if values.is_floating_point() and values.dtype not in _FLOATS:
                values = values.float()
            return values.numpy(force=True)
        if isinstance(values, np.ma.MaskedArray):
            if np.ma.is_masked(values):
                raise DataError(f"{name} has masked values: remove or replace them")
            values = values.data
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        reason = printable(" ".join(str(error).split())[:200])
        raise DataError(f"{name}: this {type(values).__name__} makes no array: {reason}") from None
    if array.dtype.kind in "OT" or (array.dtype.kind == "U" and isinstance(values, (list, tuple))):
        array = _plain(name, np.asarray(values, object))  # numpy makes a text of the 1 in [1, "a"]
    return array


_FLOATS = (torch.float16, torch.float32, torch.float64)


def _plain(name: str, array: Array) -> Array:
    """An array of objects as one of texts, bools or numbers; DataError if they are not alike."""
    flat = array.ravel().tolist()
    for kinds, dtype in (((str,), str), ((bool, np.bool_), bool), ((int, np.integer), None)):
        if flat and all(isinstance(item, kinds) for item in flat):
            plain: Array = np.array(flat, dtype).reshape(array.shape)
            if plain.dtype.kind != "O":
                return plain
    kinds_found = list(dict.fromkeys(type(item).__name__ for item in flat[:1000]))
    found = " and ".join(kinds_found[:3])
    advice = "give numbers of one type, as by .astype(float), or texts only"
    raise DataError(f"{name} is an array of objects ({found or 'none'}): {advice}")


def _columns_to_array(factors: Any) -> Array:
    """Factors [n, k] as an array; columns of a table may be of several types: then all as texts."""
    if not hasattr(factors, "columns"):
        return to_array("factors", factors)
    columns = [to_array(f"factors: {name}", factors[name]) for name in factors.columns]
    return np.stack(columns, 1)


def _read_items(dataset: Dataset[Any]) -> tuple[Array, list[Any] | None, str]:
    """Read the items of a Dataset: examples, classes or None, and the layout if it is known."""
    if isinstance(dataset, IterableDataset):
        raise DataError("data is an IterableDataset: give a Dataset with a length and items")
    try:
        count = len(dataset)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        kind = type(dataset).__name__
        raise DataError(f"data: {kind} has no length: define __len__ in its class") from None
    if count < 2:
        raise DataError(f"data: the Dataset has {count} items: two are needed, to train and test")

    def read(number: int) -> tuple[Array, Any]:
        x, y = _parts(dataset[number], number)
        return _example(x, number), y

    start, _ = read(0)
    if start.nbytes * count > available_memory() // 2:
        size = start.nbytes * count / 1e9
        raise DataError(f"data: the Dataset does not fit in memory: its items have {size:,.1f} GB")
    values: Array = np.empty((count, *start.shape), start.dtype)
    labels: list[Any] = []
    for number in range(count):
        item, y = read(number)
        if item.shape != start.shape or item.dtype != start.dtype:
            shapes = ["×".join(map(str, one.shape)) or "one number" for one in (start, item)]
            raise DataError(
                f"data: item 0 is {start.dtype} of {shapes[0]}, and item {number} {item.dtype} of "
                f"{shapes[1]}: make them alike, images by a transform such as "
                "torchvision.transforms.Resize((64, 64))"
            )
        if number < _READ_TWICE and not np.array_equal(item, read(number)[0]):
            raise DataError(
                f"data: item {number} is another one when it is read again, and items are read "
                "once: leave random transforms out, and give augment, as augment=('flip',)"
            )
        values[number] = item
        labels.append(y)
        if number % _REPORTED == 0:
            report_progress("reading", number, count)
    image = isinstance(_parts(dataset[0], 0)[0], Image)
    layout = "" if not image else ("no_channels" if start.ndim == 2 else "channels_last")
    if all(y is None for y in labels):
        return values, None, layout
    return values, [y.item() if hasattr(y, "item") and _size(y) == 1 else y for y in labels], layout


def _size(value: Any) -> int:
    return int(np.prod(getattr(value, "shape", (0,)), dtype=int))


def _parts(item: Any, number: int) -> tuple[Any, Any]:
    """The example of an item, and its class or None."""
    if isinstance(item, (tuple, list)):
        if 1 <= len(item) <= 2:
            return item[0], item[1] if len(item) == 2 else None
        raise DataError(
            f"data: item {number} has {len(item)} parts: give x or (x, y), an example and its class"
        )
    return item, None


def _example(x: Any, number: int) -> Array:
    """An example of a Dataset as an array."""
    if isinstance(x, Image):
        if x.mode not in ("1", "L", "RGB", "RGBA"):
            raise DataError(
                f"data: item {number} is an image of mode {x.mode}: convert it, by "
                'image.convert("L") or "RGB"'
            )
        return np.asarray(x)
    if not isinstance(x, (Tensor, np.ndarray)):
        raise DataError(
            f"data: item {number} is a {type(x).__name__}, not a tensor, an array or an image, "
            "nor (x, y) with one"
        )
    return to_array(f"data: item {number}", x)


def _class_names(dataset: Any) -> tuple[str, ...]:
    """The attribute `classes` of a Dataset, as those of torchvision have it."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    names = getattr(dataset, "classes", None)
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        return ()
    return tuple(map(printable, names))


def _check_splits(given: GivenData, options: ArrayOptions) -> Splits:
    """Splits as they are, with a fingerprint. OptionError for options that would do nothing."""
    splits: Splits = given.data
    if given.labels is not None or given.factors is not None:
        raise DataError("labels: Splits have labels and factors of their own")
    for name in ("layout", "values", "test_fraction", "split_seed", "validation"):
        if getattr(options, name) != type(options).model_fields[name].default:
            raise OptionError(f"{name} does nothing: Splits are read and split already")
    first, _ = splits.train.get_batch(torch.arange(1, device=splits.train.device))
    if options.binarize != "none":
        if first.dtype != torch.uint8:
            raise DataError("--binarize takes 8-bit levels, and these Splits hold floats")
        splits = replace(splits, spec=replace(splits.spec, domain="binary"))
    if splits.fingerprint:
        return splits
    digest = hashlib.sha256(repr(splits.spec.to_dict()).encode())
    for split in (splits.train, splits.validation, splits.test):
        for index in torch.arange(len(split), device=split.device).split(4096):
            x, y = split.get_batch(index)
            digest.update(hash_examples(x.cpu(), None if y is None else y.cpu()))
    return replace(splits, fingerprint=digest.hexdigest())
