"""What the values of an array mean: bits, 8-bit levels, or any numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaezoo.data.spec import Domain
from vaezoo.errors import DataError

Array = NDArray[Any]

_AT_ONCE = 1 << 20
"""Values looked at together, so that checking a large array needs no second one."""


class Levels(NamedTuple):
    """The arrays as tensors, uint8 (0 to 255) or float32 all of them, and their domain."""

    tensors: list[Tensor]
    domain: Domain


def infer_domain(arrays: Mapping[str, Array]) -> Levels:
    """Arrays of one data set, by the name that errors call them by, judged together.

    True and false, or nothing but 0 and 1: binary, as uint8 0 and 255.
    Whole numbers from 0 to 255, one above 1 at least: levels of grey, uint8.
    Floats in [0, 1] that are all k / 255, to the last bit or one beside it: levels again, uint8 k.
    Other floats in [0, 1]: unit, kept as float32. Floats beyond: real, float32.
    DataError for anything else: other whole numbers (their scale is not known), NaN, infinity,
    complex numbers, text.
    """
    kinds = {_kind(name, values) for name, values in arrays.items()}
    if len(kinds) > 1:
        types = " and ".join(f"{name} {values.dtype}" for name, values in arrays.items())
        raise DataError(f"{types}: values of one data set must be of one kind")
    if kinds == {"bool"}:
        return Levels([_tensor(values, np.uint8, 255) for values in arrays.values()], "binary")
    low, high = _range(arrays)
    every = _every(arrays)
    if low >= 0 and high <= 1 and every(lambda piece: (piece == 0) | (piece == 1)):
        return Levels([_tensor(values, np.uint8, 255) for values in arrays.values()], "binary")
    if kinds == {"whole"}:
        if low < 0 or high > 255:
            raise DataError(
                f"{next(iter(arrays))}: whole numbers from {low:g} to {high:g} are no levels of "
                "grey (0 to 255): store floats, scaled as you want them"
            )
        return Levels([_tensor(values, np.uint8) for values in arrays.values()], "unit")
    if low < 0 or high > 1:
        return Levels([_tensor(values, np.float32) for values in arrays.values()], "real")
    if every(_is_level):
        return Levels([_tensor(values, np.uint8, 255) for values in arrays.values()], "unit")
    return Levels([_tensor(values, np.float32) for values in arrays.values()], "unit")


def _kind(name: str, values: Array) -> str:
    kinds = {"b": "bool", "u": "whole", "i": "whole", "f": "float"}
    if values.dtype.kind not in kinds:
        raise DataError(f"{name} is of {values.dtype}: numbers, or true and false, are needed")
    return kinds[values.dtype.kind]


def _range(arrays: Mapping[str, Array]) -> tuple[float, float]:
    """The least and the greatest value of all; DataError for those that float32 does not hold."""
    lows, highs = [], []
    for name, values in arrays.items():
        if values.dtype.kind == "f":
            for piece in _pieces(values):
                if not np.isfinite(piece).all():
                    raise DataError(f"{name} holds NaN or infinity: remove or replace them")
        lows.append(values.min())
        highs.append(values.max())
        if max(abs(float(lows[-1])), abs(float(highs[-1]))) > float(np.finfo(np.float32).max):
            raise DataError(f"{name} holds values too large for 32-bit floats")
    return float(min(lows)), float(max(highs))


def _every(arrays: Mapping[str, Array]) -> Callable[[Callable[[Array], Any]], bool]:
    def every(holds: Callable[[Array], Any]) -> bool:
        return all(
            bool(np.all(holds(piece))) for values in arrays.values() for piece in _pieces(values)
        )

    return every


def _is_level(piece: Array) -> Any:
    """Which values are k / 255; one bit off, as a product with 1 / 255 may be."""
    level = np.rint(piece.astype(np.float64) * 255) / 255
    rounded = level.astype(piece.dtype)
    return np.abs(rounded - piece) <= np.spacing(rounded)


def _pieces(values: Array) -> Iterator[Array]:
    """Some examples at a time."""
    step = max(1, _AT_ONCE * len(values) // values.size)
    for start in range(0, len(values), step):
        yield values[start : start + step]


def _tensor(values: Array, kind: type, scale: int = 1) -> Tensor:
    """The values in C's order; those that are scaled become whole numbers."""
    result: Array = np.empty(values.shape, kind)
    done = 0
    for piece in _pieces(values):
        scaled = piece if scale == 1 else np.rint(piece.astype(np.float32) * scale)
        result[done : done + len(piece)] = scaled
        done += len(piece)
    return torch.from_numpy(result)
