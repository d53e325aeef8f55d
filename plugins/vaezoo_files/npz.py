"""The data set `npz`: arrays in an .npz file, and the domain that their values imply."""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import MAGIC_PREFIX, read_array
from numpy.typing import NDArray
from torch import Tensor

from vaezoo import BaseDataset, DataSpec, Splits, TensorSplit
from vaezoo.data.base import hash_content, hash_examples, random_split
from vaezoo.data.options import SPLIT_SEED
from vaezoo.data.spec import Domain
from vaezoo.errors import DataError, printable
from vaezoo.io import open_regular
from vaezoo.runtime.memory import available_memory

from .options import NpzOptions

Array = NDArray[Any]

NAMES = {
    "train": ("images", "x", "data", "imgs", "x_train", "train_images", "arr_0"),
    "train labels": ("labels", "y", "y_train", "train_labels"),
    "test": ("x_test", "test_images"),
    "test labels": ("y_test", "test_labels"),
}
"""The names that the array of each role may have."""

_MAX_CHANNELS = 4
"""With `layout` auto, an axis that is at most this long is that of the channels."""

_MAX_CLASSES = 65_536

_LARGEST_COUNT = 1 << 24
"""Up to here float32 holds every whole number."""

_OBJECTS = "it holds Python objects, which are never loaded: store plain numbers"

_PIECE = 1 << 20
"""Values checked at once, so that checking a large array needs no second one."""


class NpzDataset(BaseDataset):
    """Arrays that numpy.savez wrote; `root` is the file.

    NAMES has the names of the arrays: the examples, their class numbers from 0 (-1: unknown), and
    the same for testing. The numbers that occur are the names of the classes. Without test arrays
    `options.test_fraction` of the examples are held out at random. Vectors are [n, values]; signals
    have one axis more, images two, volumes three: `options.layout` says where the channels are.
    `infer_domain` says which values are allowed. Pickled objects are never loaded.
    """

    options: NpzOptions

    def load(self) -> Splits:
        if self.options.root is None:
            raise DataError("npz needs --root FILE: an .npz file made by numpy.savez")
        path = self.options.root
        found = _read(path)
        roles = [role for role in ("train", "test") if role in found]
        name, array = found["train"]
        layout = _find_layout(path, name, array, self.options.layout)
        examples = {role: _to_channels_first(path, *found[role], layout) for role in roles}
        shapes = {values.shape[1:] for values in examples.values()}
        if len(shapes) > 1:
            sizes = " and ".join("×".join(map(str, shape)) for shape in shapes)
            raise DataError(f"{path}: examples to train on and to test with differ: {sizes}")
        arrays = {f"{path}: {found[role][0]}": examples[role] for role in roles}
        tensors, domain = infer_domain(arrays, counts=self.options.values == "counts")
        if self.options.binarize != "none":
            if domain == "count":
                raise DataError("--binarize makes values 0 or 1, and --values counts keeps them")
            if tensors[0].dtype != torch.uint8:
                raise DataError(
                    f"{path}: --binarize takes 8-bit levels, or floats that are multiples of 1/255"
                )
            domain = "binary"
        labels, classes = _renumber(
            {
                role: _labels(path, *found[f"{role} labels"], len(examples[role]))
                for role in roles
                if f"{role} labels" in found
            }
        )
        train, validation, test, chosen = self._split(tensors, labels)
        counts = f"{len(train):,} to train on, {len(test):,} to test"
        axes = _axes(layout, array.ndim)
        if self.options.layout == "auto":
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
            fingerprint=_fingerprint(train, validation, test),
        )

    def read_images(self, paths: Sequence[Path], spec: DataSpec) -> Tensor:
        if not spec.is_bounded:
            what = "counts" if spec.domain == "count" else "real numbers"
            raise DataError(
                f"the values of this data are {what}, not 8-bit levels as in image files: "
                "give the number of a test example"
            )
        return super().read_images(paths, spec)

    def _split(
        self, tensors: Sequence[Tensor], labels: Mapping[str, Tensor]
    ) -> tuple[TensorSplit, TensorSplit, TensorSplit, str]:
        options = self.options
        count = len(tensors[0])
        if len(tensors) == 2:
            train, test = (
                # Unknown classes where only the other role has labels.
                TensorSplit(
                    values, labels.get(role, torch.full((len(values),), -1)) if labels else None
                )
                for role, values in zip(("train", "test"), tensors, strict=True)
            )
            left, held_out, _ = random_split(count, 0, options.validation, SPLIT_SEED)
            description = "as the file has them"
        else:
            if count < 2:
                needed = "two are needed, to train and test"
                raise DataError(f"{options.root} holds one example: {needed}")
            testing = min(max(1, round(count * options.test_fraction)), count - 1)
            left, held_out, tested = random_split(
                count, testing, options.validation, options.split_seed
            )
            train = TensorSplit(tensors[0], labels.get("train"))
            test = TensorSplit(train.images, train.labels, tested)
            description = f"at random by seed {options.split_seed}"
        validation = TensorSplit(train.images, train.labels, held_out)
        return TensorSplit(train.images, train.labels, left), validation, test, description


def _read(path: Path) -> dict[str, tuple[str, Array]]:
    """Read the name and the array of each role that the file has."""
    if not path.is_file():
        raise DataError(f"--root {path} is not a file: npz takes an .npz file made by numpy.savez")
    found: dict[str, tuple[str, Array]] = {}
    try:
        with open_regular(path) as file:
            begin = file.read(len(MAGIC_PREFIX))
            if begin[:1] == b"\x80":  # a pickle
                raise ValueError(_OBJECTS)
            if begin == MAGIC_PREFIX:
                advice = "store it by numpy.savez(FILE, images=...)"
                raise DataError(f"{path} is a single array: {advice}")
            with zipfile.ZipFile(file) as archive:
                members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
                names = _names(path, members)
                size = sum(members[name].file_size for name in names.values())
                # zipfile reads no more of a member than its directory says.
                if size > available_memory() // 2:
                    raise DataError(
                        f"{path} does not fit in memory: its arrays have {size / 1e9:,.1f} GB"
                    )
                for role, name in names.items():
                    with archive.open(members[name]) as member:
                        found[role] = name, read_array(member, allow_pickle=False)
                        member.read(1)  # at the end of a member its checksum is compared
    except DataError:
        raise
    except Exception as error:  # numpy, zipfile and zlib raise errors of any kind for damaged files
        reason = printable(" ".join(str(error).split())[:200]) or type(error).__name__
        if "allow_pickle" in reason:
            reason = _OBJECTS
        raise DataError(f"cannot read {path} as .npz: {reason}") from None
    return found


def _names(path: Path, members: Collection[str]) -> dict[str, str]:
    """Find the name of the array of each role that the file has."""
    names: dict[str, str] = {}
    for role, known in NAMES.items():
        there = [name for name in known if name in members]
        if len(there) > 1:
            raise DataError(f"{path} holds both {there[0]} and {there[1]}: keep one")
        if there:
            names[role] = there[0]
    if "train" not in names:
        shown = ", ".join(printable(name[:40]) for name in itertools.islice(members, 10))
        more = ", ..." if len(members) > 10 else ""
        raise DataError(
            f"{path} holds {shown + more or 'nothing'}: the array of the examples must be named "
            f"one of {', '.join(NAMES['train'])}"
        )
    return names


def _axes(layout: str, ndim: int) -> str:
    """The names of an array's axes: "n×C×H×W"."""
    sizes = ndim - 1 - (layout != "no_channels")
    spatial = {0: "", 1: "×L", 2: "×H×W", 3: "×D×H×W"}[sizes]
    first, last = (layout == where for where in ("channels_first", "channels_last"))
    return f"n{'×C' * first}{spatial}{'×C' * last}"


def _find_layout(path: Path, name: str, values: Array, layout: str) -> str:
    """The layout of an array, where none is given: DataError if it could be another one too."""
    shape = "×".join(map(str, values.shape)) or "one number"
    if not values.size:
        raise DataError(f"{path}: {name} is empty ({shape})")
    if not 2 <= values.ndim <= (4 if layout == "no_channels" else 5):
        raise DataError(
            f"{path}: {name} is {shape}: vectors are [n, values], signals [n, C, L], images "
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
        f"{path}: {name} is {shape}, and {which} of its ends is at most {_MAX_CHANNELS} long, as "
        f"channels are: say whether it is {meant}"
    )


def _to_channels_first(path: Path, name: str, values: Array, layout: str) -> Array:
    """Arrange examples as [n, C, ...]; layout: of NpzOptions, but not auto."""
    _find_layout(path, name, values, layout)
    if layout == "no_channels":
        return values[:, None]
    return values if layout == "channels_first" else np.moveaxis(values, -1, 1)


def _describe(
    found: Mapping[str, tuple[str, Array]],
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


def _labels(path: Path, name: str, values: Array, count: int) -> Tensor:
    """Check class numbers: int64 [n]. values: whole numbers [n] or [n, 1]."""
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "uib":
        raise DataError(
            f"{path}: {name} must be class numbers [n], whole, not {values.dtype} of "
            f"{'×'.join(map(str, values.shape))}"
        )
    if len(values) != count:
        raise DataError(f"{path}: {count:,} examples have {len(values):,} {name}")
    low, high = int(values.min()), int(values.max())
    if low < -1 or high >= 2**63:
        raise DataError(
            f"{path}: {name} go from {low} to {high}: class numbers go from 0 up (-1: unknown)"
        )
    return torch.from_numpy(values.astype(np.int64))


def _renumber(labels: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Class numbers without gaps, and the names of the classes: the numbers in the file.

    labels: int64 [n] by role. Unknown classes stay -1.
    """
    if not labels:
        return {}, ()
    numbers = torch.cat([*labels.values()]).unique()
    numbers = numbers[numbers >= 0]
    if len(numbers) > _MAX_CLASSES:
        raise DataError(f"{len(numbers):,} classes are too many: {_MAX_CLASSES:,} is the most")
    found = {
        role: torch.where(values < 0, -1, torch.searchsorted(numbers, values))
        for role, values in labels.items()
    }
    return found, tuple(map(str, numbers.tolist()))


def _fingerprint(*splits: TensorSplit) -> str:
    parts: list[bytes | Tensor] = []
    for split in splits:
        index = torch.empty(0) if split.index is None else split.index
        parts += [hash_examples(split.images, split.labels), index]
    return hash_content(*parts)


def infer_domain(arrays: Mapping[str, Array], counts: bool = False) -> tuple[list[Tensor], Domain]:
    """Infer the domain of the arrays of one data set together, and convert them.

    arrays: by the name that error messages use. Returns them as tensors, all of them uint8 (0 to
    255) or float32, and their domain, which depends on their values:

    - true and false, or only 0 and 1: binary, as uint8 0 and 255;
    - whole numbers from 0 to 255, at least one above 1: levels, uint8;
    - floats in [0, 1] that all equal k / 255 within one unit in the last place: levels, uint8 k;
    - other floats in [0, 1]: unit, float32; other floats: real, float32.

    counts: take whole numbers from 0, of any type, as counts, float32.

    DataError for all others: other whole numbers (their scale is not known), NaN, infinity, complex
    numbers, text.
    """
    domain, kind, scale = _infer_counts(arrays) if counts else _infer(arrays)
    return [_tensor(values, kind, scale) for values in arrays.values()], domain


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
                "levels (0 to 255): if they are counts, give --values counts, else store floats, "
                "scaled as you want them"
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
