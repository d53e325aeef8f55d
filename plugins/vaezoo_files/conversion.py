"""From arrays to splits: their layout, the domain of their values, classes and factors."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaezoo import BaseDataset, DataSpec, Splits, TensorSplit
from vaezoo.data.base import hash_content, hash_examples, random_split
from vaezoo.data.options import SPLIT_SEED
from vaezoo.data.spec import Domain
from vaezoo.errors import DataError, printable

from .options import ArrayOptions

Array = NDArray[Any]

Roles = Mapping[str, tuple[str, Array]]
"""The name, as the user knows it, and the array of each role: "train", the examples to train on;
"train labels", their classes; "train factors", their factors of variation; the same for "test"; and
"factor names"."""

_MAX_CHANNELS = 4
"""With `layout` auto, an axis that is at most this long is that of the channels."""

_MAX_CLASSES = 65_536

_LARGEST_COUNT = 1 << 24
"""Up to here float32 holds every whole number."""

_PIECE = 1 << 20
"""Values checked at once, so that checking a large array needs no second one."""


class ArrayDataset(BaseDataset):
    """Base of data sets of arrays."""

    options: ArrayOptions

    def read_images(self, paths: Sequence[Path], spec: DataSpec) -> Tensor:
        if not spec.is_bounded:
            what = "counts" if spec.domain == "count" else "real numbers"
            raise DataError(
                f"the values of this data are {what}, not 8-bit levels as in image files: "
                "give the number of a test example"
            )
        return super().read_images(paths, spec)


def split_arrays(
    found: Roles, options: ArrayOptions, where: str = "", class_names: Sequence[str] = ()
) -> Splits:
    """Make the splits of arrays. DataError, in one line, for what cannot be taken.

    where: what error messages begin with: "mine.npz: ". class_names: the names of the classes, if
    the labels are their numbers; by default the numbers or the texts that occur.
    """
    roles = [role for role in ("train", "test") if role in found]
    name, array = found["train"]
    layout = _find_layout(where, name, array, options.layout)
    examples = {role: _to_channels_first(where, *found[role], layout) for role in roles}
    shapes = {values.shape[1:] for values in examples.values()}
    if len(shapes) > 1:
        sizes = " and ".join("×".join(map(str, shape)) for shape in shapes)
        raise DataError(f"{where}examples to train on and to test with differ: {sizes}")
    arrays = {f"{where}{found[role][0]}": examples[role] for role in roles}
    tensors, domain = infer_domain(arrays, options.values)
    if options.binarize != "none":
        if domain == "count":
            raise DataError("--binarize makes values 0 or 1, and --values counts keeps them")
        if tensors[0].dtype != torch.uint8:
            raise DataError(
                f"{where}--binarize takes 8-bit levels, or floats that are multiples of 1/255"
            )
        domain = "binary"
    given = {role: found[f"{role} labels"] for role in roles if f"{role} labels" in found}
    labels, classes = _number_classes(
        {
            role: _check_labels(where, name, values, len(examples[role]))
            for role, (name, values) in given.items()
        },
        class_names,
        f"{where}{next(iter(given.values()), ('', None))[0]}",
    )
    factors, factor_names = _factors(where, found, {role: len(x) for role, x in examples.items()})
    splits = _split(tensors, labels, factors, options, where)
    train, validation, test, chosen = splits
    counts = f"{len(train):,} to train on, {len(test):,} to test"
    axes = _axes(layout, array.ndim)
    if options.layout == "auto":
        axes += ", guessed: --layout changes it"
    return Splits(
        spec=DataSpec(
            shape=tuple(tensors[0].shape[1:]),
            domain=domain,
            class_names=classes,
            num_examples=len(train),
        ),
        train=train,
        validation=validation if len(validation) else test,
        test=test,
        description=f"{_describe(found, examples, domain, classes, axes)}: {counts}, {chosen}",
        notes=_hints(examples.values(), tensors, domain),
        factor_names=factor_names,
        fingerprint=_fingerprint(train, validation, test),
    )


def _split(
    tensors: Sequence[Tensor],
    labels: Mapping[str, Tensor],
    factors: Mapping[str, Tensor],
    options: ArrayOptions,
    where: str,
) -> tuple[TensorSplit, TensorSplit, TensorSplit, str]:
    """Training, validation and test examples, and how they were chosen."""
    count = len(tensors[0])
    if len(tensors) == 2:
        train, test = (
            # Unknown classes where only the other role has labels.
            TensorSplit(
                values,
                labels.get(role, torch.full((len(values),), -1)) if labels else None,
                factors=factors.get(role),
            )
            for role, values in zip(("train", "test"), tensors, strict=True)
        )
        left, held_out, _ = random_split(count, 0, options.validation, SPLIT_SEED)
        description = "as the file has them"
    else:
        if count < 2:
            what = where.removesuffix(": ") or "the data"
            raise DataError(f"{what} holds one example: two are needed, to train and test")
        testing = min(max(1, round(count * options.test_fraction)), count - 1)
        left, held_out, tested = random_split(
            count, testing, options.validation, options.split_seed
        )
        train = TensorSplit(tensors[0], labels.get("train"), factors=factors.get("train"))
        test = _part(train, tested)
        description = f"at random by seed {options.split_seed}"
    return _part(train, left), _part(train, held_out), test, description


def _part(split: TensorSplit, index: Tensor) -> TensorSplit:
    return TensorSplit(split.images, split.labels, index, split.factor_values)


def _axes(layout: str, ndim: int) -> str:
    """The names of an array's axes: "n×C×H×W"."""
    sizes = ndim - 1 - (layout != "no_channels")
    spatial = {0: "", 1: "×L", 2: "×H×W", 3: "×D×H×W"}[sizes]
    first, last = (layout == where for where in ("channels_first", "channels_last"))
    return f"n{'×C' * first}{spatial}{'×C' * last}"


def _find_layout(where: str, name: str, values: Array, layout: str) -> str:
    """The layout of an array, where none is given: DataError if it could be another one too."""
    shape = "×".join(map(str, values.shape)) or "one number"
    if not values.size:
        raise DataError(f"{where}{name} is empty ({shape})")
    if not 2 <= values.ndim <= (4 if layout == "no_channels" else 5):
        raise DataError(
            f"{where}{name} is {shape}: vectors are [n, values], signals [n, C, L], images "
            "[n, C, H, W] and volumes [n, C, D, H, W], and the channels C may come last too"
        )
    if layout != "auto":
        return layout
    if values.ndim == 2:
        return "channels_first"
    first, last = (values.shape[axis] <= _MAX_CHANNELS for axis in (1, -1))
    if first != last:
        return "channels_first" if first else "channels_last"
    if values.ndim == 3 and not first:
        return "no_channels"
    choices = ["channels_first", "channels_last", "no_channels"][: 3 if values.ndim < 5 else 2]
    which = "more than one" if first else "none"
    meant = " or ".join(f"{_axes(choice, values.ndim)} (--layout {choice})" for choice in choices)
    raise DataError(
        f"{where}{name} is {shape}, and {which} of its ends is at most {_MAX_CHANNELS} long, as "
        f"channels are: say whether it is {meant}"
    )


def _to_channels_first(where: str, name: str, values: Array, layout: str) -> Array:
    """Arrange examples as [n, C, ...]; layout: of NpzOptions, but not auto."""
    _find_layout(where, name, values, layout)
    if layout == "no_channels":
        return values[:, None]
    return values if layout == "channels_first" else np.moveaxis(values, -1, 1)


def _describe(
    found: Roles,
    examples: Mapping[Any, Array],
    domain: Domain,
    classes: Sequence[str],
    axes: str,
) -> str:
    """What the arrays were taken for, in words. found: name and array by role, as in the file."""
    arrays = [found[role] for role in examples]
    shapes = ", ".join(f"{name} {'×'.join(map(str, array.shape))}" for name, array in arrays)
    count = sum(map(len, examples.values()))
    channels, *sides = next(iter(examples.values())).shape[1:]
    several = "" if channels == 1 else f"{channels}-channel "
    colors = {1: "grey ", 3: "colour "}.get(channels, several)
    size = "×".join(map(str, sides))
    what = {
        0: f"vectors of {channels:,} value{'' if channels == 1 else 's'}",
        1: f"{several}signals of {size} values ({axes})",
        2: f"{colors}images of {size} pixels ({axes})",
        3: f"{several}volumes of {size} voxels ({axes})",
    }[len(sides)]
    values = {"binary": "0 or 1", "unit": "in [0, 1]", "real": "real numbers", "count": "counts"}
    labelled = f", in {len(classes)} class{'es' * (len(classes) > 1)}" if classes else ""
    return f"{shapes}, taken for {count:,} {what}, {values[domain]}{labelled}"


def _hints(arrays: Iterable[Array], tensors: Sequence[Tensor], domain: Domain) -> list[str]:
    """What the values look like, if they are read as something else. arrays: as in the file."""
    low = min(float(values.min()) for values in tensors)
    high = max(float(values.max()) for values in tensors)
    whole = all(values.dtype.kind in "ui" for values in arrays)
    if domain == "unit" and whole and high < (255 if tensors[0].dim() == 2 else 128):
        taken = f"its whole numbers from {low:.4g} to {high:.4g} are taken as 8-bit levels"
        return [f"{taken}: if they are counts, give --values counts"]
    if domain != "real" or tensors[0].dim() < 4 or low < 0 or not 127 < high <= 255:
        return []
    taken = f"its values from {low:.4g} to {high:.4g} are taken as real numbers"
    return [f"{taken}: if they are 8-bit levels, store them as uint8"]


def _check_labels(where: str, name: str, values: Array, count: int) -> Array:
    """Check the classes of examples, [n]. values: whole numbers, texts or bools, [n] or [n, 1]."""
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "uibU":
        raise DataError(
            f"{where}{name} must be class numbers [n], whole, or texts, not {values.dtype} of "
            f"{'×'.join(map(str, values.shape))}"
        )
    if len(values) != count:
        raise DataError(f"{where}{count:,} examples have {len(values):,} {name}")
    if values.dtype.kind in "ui":
        low, high = int(values.min()), int(values.max())
        if low < -1 or high >= 2**63:
            raise DataError(
                f"{where}{name} go from {low} to {high}: class numbers go from 0 up (-1: unknown)"
            )
        return values.astype(np.int64)
    return values.astype(str)


def _number_classes(
    labels: Mapping[str, Array], names: Sequence[str], what: str
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Class numbers without gaps, and the names of the classes: the numbers or texts that occur.

    labels: int64 or texts, [n] by role. names: of classes 0, 1, ..., which are then not renumbered.
    Unknown classes stay -1.
    """
    if not labels:
        return {}, ()
    if len({values.dtype.kind for values in labels.values()}) > 1:
        raise DataError(f"{what}: labels to train on and to test with are of different types")
    everything = np.concatenate([*labels.values()])
    numbers = everything.dtype.kind == "i"
    known = np.unique(everything[everything >= 0] if numbers else everything)
    if names and numbers and not (len(known) and known[-1] >= len(names)):
        return {role: torch.from_numpy(values) for role, values in labels.items()}, tuple(names)
    if len(known) > _MAX_CLASSES:
        raise DataError(f"{len(known):,} classes are too many: {_MAX_CLASSES:,} is the most")
    found = {
        role: torch.from_numpy(
            np.where(values == -1 if numbers else False, -1, np.searchsorted(known, values))
        )
        for role, values in labels.items()
    }
    return found, tuple(printable(str(name)) for name in known)


def _factors(
    where: str, found: Roles, counts: Mapping[str, int]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The factors of variation, int64 [n, factors] by role, numbered from 0, and their names."""
    given = {role: found[f"{role} factors"] for role in counts if f"{role} factors" in found}
    names = np.atleast_1d(found["factor names"][1]) if "factor names" in found else np.array([])
    if not given:
        if len(names):
            raise DataError(f"{where}there are {found['factor names'][0]} and no factors")
        return {}, ()
    if len(given) < len(counts):
        raise DataError(f"{where}factors are needed of the examples to train on and to test with")
    arrays = {}
    for role, (name, values) in given.items():
        columns = values[:, None] if values.ndim == 1 else values
        if columns.ndim != 2 or columns.dtype.kind not in "uibUf" or not columns.size:
            raise DataError(
                f"{where}{name} must be [n, factors], whole numbers or texts, not "
                f"{values.dtype} of {'×'.join(map(str, values.shape))}"
            )
        if columns.dtype.kind == "f" and not (columns == np.rint(columns)).all():
            advice = "numpy.digitize makes whole numbers of others"
            raise DataError(f"{where}{name} must be whole numbers or texts: {advice}")
        if len(columns) != counts[role]:
            raise DataError(f"{where}{counts[role]:,} examples have {len(columns):,} {name}")
        arrays[role] = columns
    widths = {columns.shape[1] for columns in arrays.values()}
    if len(widths) > 1:
        raise DataError(f"{where}factors to train on and to test with differ in number")
    width = widths.pop()
    if len(names) not in (0, width) or (len(names) and names.dtype.kind != "U"):
        what = "texts" if len(names) == width else f"not {len(names)}"
        raise DataError(f"{where}{width} factors need {width} factor_names, {what}")
    everything = np.concatenate([*arrays.values()])
    # In the order of the values: metrics may use the distance of two levels.
    levels = [np.unique(column, return_inverse=True)[1].reshape(-1) for column in everything.T]
    parts = torch.from_numpy(np.stack(levels, 1)).split([counts[role] for role in arrays])
    shown = [printable(str(name)) for name in names] or [f"factor {i}" for i in range(width)]
    return dict(zip(arrays, parts, strict=True)), tuple(shown)


def _fingerprint(*splits: TensorSplit) -> str:
    parts: list[bytes | Tensor] = []
    for split in splits:
        index = torch.empty(0) if split.index is None else split.index
        parts += [hash_examples(split.images, split.labels), index]
        parts += [] if split.factor_values is None else [split.factor_values]
    return hash_content(*parts)


def infer_domain(
    arrays: Mapping[str, Array], values: Literal["auto", "counts", "real"] = "auto"
) -> tuple[list[Tensor], Domain]:
    """Infer the domain of the arrays of one data set together, and convert them.

    arrays: by the name that error messages use. Returns them as tensors, all of them uint8 (0 to
    255) or float32, and their domain, which depends on their values:

    - true and false, or only 0 and 1: binary, as uint8 0 and 255;
    - whole numbers from 0 to 255, at least one above 1: levels, uint8;
    - floats in [0, 1] that all equal k / 255 within one unit in the last place: levels, uint8 k;
    - other floats in [0, 1]: unit, float32; other floats: real, float32.

    values: "counts" takes whole numbers from 0, of any type, as counts, float32, and "real" all
    numbers as real numbers, float32.

    DataError for all others: other whole numbers (their scale is not known), NaN, infinity, complex
    numbers, text.
    """
    if values == "real":
        for name, array in arrays.items():
            _kind(name, array)
        _range(arrays)
        found: tuple[Domain, type, int] = "real", np.float32, 1
    else:
        found = _infer_counts(arrays) if values == "counts" else _infer(arrays)
    domain, kind, scale = found
    return [_tensor(array, kind, scale) for array in arrays.values()], domain


def _infer(arrays: Mapping[str, Array]) -> tuple[Domain, type, int]:
    """The domain, the type to store values as, and the factor to multiply them by."""
    kinds = {_kind(name, values) for name, values in arrays.items()}
    if len(kinds) > 1:
        types = " and ".join(f"{name} {values.dtype}" for name, values in arrays.items())
        raise DataError(f"{types}: values of one data set must be of one kind")
    if kinds == {"bool"}:
        return "binary", np.uint8, 255
    low, high = _range(arrays)
    if low >= 0 and high <= 1 and _all(arrays, lambda piece: (piece == 0) | (piece == 1)):
        return "binary", np.uint8, 255
    if kinds == {"whole"}:
        if low < 0 or high > 255:
            raise DataError(
                f"{next(iter(arrays))}: whole numbers from {low:g} to {high:g} are not "
                "levels (0 to 255): if they are counts, give --values counts, if they are "
                "measurements, --values real"
            )
        return "unit", np.uint8, 1
    if low < 0 or high > 1:
        return "real", np.float32, 1
    return ("unit", np.uint8, 255) if _all(arrays, _is_level) else ("unit", np.float32, 1)


def _infer_counts(arrays: Mapping[str, Array]) -> tuple[Domain, type, int]:
    """As _infer, for counts. DataError if they are none."""
    for name, values in arrays.items():
        _kind(name, values)
    low, high = _range(arrays)
    if low < 0 or not _all(arrays, lambda piece: piece == np.rint(piece)):
        raise DataError(
            f"{next(iter(arrays))}: --values counts takes whole numbers from 0, and "
            + (f"its smallest value is {low:g}" if low < 0 else "some of its values are not whole")
        )
    if high > _LARGEST_COUNT:
        raise DataError(f"{next(iter(arrays))}: counts go to 2^24, and its largest is {high:g}")
    return "count", np.float32, 1


def _kind(name: str, values: Array) -> str:
    kinds = {"b": "bool", "u": "whole", "i": "whole", "f": "float"}
    if values.dtype.kind not in kinds:
        raise DataError(f"{name} is of {values.dtype}: numbers, or true and false, are needed")
    return kinds[values.dtype.kind]


def _range(arrays: Mapping[str, Array]) -> tuple[float, float]:
    """The minimum and the maximum; DataError for values that float32 cannot hold."""
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


def _all(arrays: Mapping[str, Array], condition: Callable[[Array], Any]) -> bool:
    """Whether a condition, given as truth values of a piece, holds for all values."""
    pieces = itertools.chain.from_iterable(_pieces(values) for values in arrays.values())
    return all(bool(np.all(condition(piece))) for piece in pieces)


def _is_level(piece: Array) -> Any:
    """Which values are k / 255; one unit in the last place off, as after a product with 1 / 255."""
    level = np.rint(piece.astype(np.float64) * 255) / 255
    rounded = level.astype(piece.dtype)
    return np.abs(rounded - piece) <= np.spacing(rounded)


def _pieces(values: Array) -> Iterator[Array]:
    """Slices of some examples each."""
    step = max(1, _PIECE * len(values) // values.size)
    for start in range(0, len(values), step):
        yield values[start : start + step]


def _tensor(values: Array, kind: type, scale: int) -> Tensor:
    """Convert the values, in C order; scaled ones are rounded to whole numbers."""
    result: Array = np.empty(values.shape, kind)
    for target, piece in zip(_pieces(result), _pieces(values), strict=True):
        target[:] = piece if scale == 1 else np.rint(piece.astype(np.float32) * scale)
    return torch.from_numpy(result)
