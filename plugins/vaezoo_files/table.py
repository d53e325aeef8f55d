"""The data set `table`: the columns of a .csv or .parquet file, or of a DataFrame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vaezoo import GivenData, Splits
from vaezoo.data.base import compute_statistics, hash_content
from vaezoo.errors import DataError, nearest, printable

from .arrays import given_roles
from .conversion import Array, ArrayDataset, split_arrays
from .options import ArrayOptions, TableOptions
from .table_files import Column, FrameTable, Table, check_size, open_table

MAX_CATEGORIES = 100
"""A column of more different texts is refused unless --categorical names it: it may be an id."""

_DIGITS = 2.0**-24
"""The relative error of a 32-bit float."""


class TableDataset(ArrayDataset):
    """Columns of numbers, of true and false, and of categories, which become one-hot columns.

    Each category of a column, in the order of the sorted texts, is a value that is 1 in the rows of
    this category and 0 elsewhere; its name is `COLUMN=CATEGORY`. True and false are 1 and 0. The
    data is binary if all values are 0 or 1, and real otherwise. Numbers are then standardised;
    categories and bools stay 0 and 1, so that a rare category weighs no more than a common one.
    """

    options: TableOptions  # type: ignore[assignment]

    def load(self) -> Splits:
        options = self.options
        if options.root is None:
            raise DataError("table needs --root FILE: a .csv or .parquet file")
        return self._split(open_table(options.root, options.delimiter, options.encoding), {})

    def load_object(self, given: GivenData) -> Splits:
        roles = given_roles(given)
        for role, name in (("train labels", "label_column"), ("train factors", "factor_columns")):
            if role in roles and getattr(self.options, name):
                raise DataError(f"{roles[role][0]} and {name} are given: leave one out")
        if self.options.root is not None:
            raise DataError("root is given, and a DataFrame: leave one out")
        return self._split(FrameTable(given.data), roles)

    def _split(self, table: Table, roles: dict[str, tuple[str, Array]]) -> Splits:
        options = self.options
        chosen = self._choose(table)
        label = [options.label_column] if options.label_column else []
        used = dict.fromkeys([*chosen, *label, *options.factor_columns])
        columns = table.read([*used], options.categorical)
        rows = len(next(iter(columns.values())).values)
        if not rows:
            raise DataError(f"{table.where}the table has no rows")
        parts = [_encode(table, name, columns[name], options.categorical) for name in chosen]
        names = tuple(name for part in parts for name in part.names)
        check_size(table.where, rows, len(names), size=8)
        x = np.empty((rows, len(names)), np.float32)
        start = 0
        for part in parts:
            part.write(x[:, start : start + len(part.names)])
            start += len(part.names)
        found = {"train": ("the table", x), **roles}
        if label:
            found["train labels"] = (
                f"column {label[0]}",
                _labels(table, label[0], columns[label[0]]),
            )
        if options.factor_columns:
            levels = [_levels(table, name, columns[name]) for name in options.factor_columns]
            found["train factors"] = "factor_columns", np.stack(levels, 1)
            found["factor names"] = "factor_columns", np.array(options.factor_columns)
        bits = bool(((x == 0) | (x == 1)).all())
        shared = {name: getattr(options, name) for name in TableOptions.model_fields}
        shared = {name: v for name, v in shared.items() if name in ArrayOptions.model_fields}
        if options.values == "auto":
            shared["values"] = "auto" if bits else "real"
        splits = split_arrays(found, ArrayOptions(**shared, layout="channels_first"), table.where)
        spec = splits.spec
        if spec.domain == "real" and options.standardize == "auto":
            statistics = compute_statistics(splits.train)
            fixed = [part.fixed for part in parts for _ in part.names]
            mean = (0.0 if f else m for f, m in zip(fixed, statistics.mean, strict=True))
            std = (1.0 if f else s for f, s in zip(fixed, statistics.std, strict=True))
            statistics = replace(statistics, mean=tuple(mean), std=tuple(std))
            spec = replace(spec, statistics=statistics)
        return replace(
            splits,
            spec=spec,
            notes=[*_describe(table, parts), *splits.notes],
            column_names=names,
            fingerprint=hash_content(repr(names).encode(), splits.fingerprint.encode()),
        )

    def _choose(self, table: Table) -> list[str]:
        """The names of the columns that are values of an example."""
        options = self.options
        label = [options.label_column] if options.label_column else []
        taken = [*label, *options.factor_columns]
        given = {
            "columns": options.columns,
            "categorical": options.categorical,
            "label-column": label,
            "factor-columns": options.factor_columns,
        }
        for flag, names in given.items():
            for name in names:
                if name not in table.names:
                    known = ", ".join(map(printable, table.names[:10]))
                    more = ", ..." if len(table.names) > 10 else ""
                    advice = nearest(name, table.names) or f" (it has {known}{more})"
                    raise DataError(f"{table.where}--{flag}: there is no column {name!r}{advice}")
        for name in options.columns:
            if name in taken:
                what = "the label" if name in label else "a factor"
                raise DataError(f"--columns: {name} is {what}: leave it out of the columns")
        chosen = list(dict.fromkeys(options.columns))
        chosen = chosen or [name for name in table.names if name not in taken]
        if not chosen:
            raise DataError(f"{table.where}no columns are left besides the label and the factors")
        return chosen


class Encoded:
    """A column as one or several values of an example.

    names: of the values. fixed: whether they stay 0 and 1.
    """

    def __init__(self, column: str, values: Array, categories: Sequence[str] = ()) -> None:
        self.column, self.values, self.categories = column, values, categories
        one_hot = tuple(f"{column}={category}" for category in categories)
        self.names = tuple(map(printable, one_hot or (column,)))
        self.fixed = bool(categories) or values.dtype == np.bool_

    def write(self, target: Array) -> None:
        """Write the values, [n, len(names)]."""
        if self.categories:
            target[:] = 0
            target[np.arange(len(target)), self.values] = 1
        else:
            target[:, 0] = self.values

    def note(self) -> str:
        """What may be wrong with the column, or ""."""
        values, name = self.values, printable(self.column)
        if values.min() == values.max():
            return f"column {name} has the same value in every row: leave it out of --columns"
        step = float(np.abs(values).max()) * _DIGITS
        if values.dtype.kind == "f" and not self.categories and step > 0.01 * float(values.std()):
            return f"column {name}: 32-bit floats keep few of its digits: subtract its mean"
        return ""


def _encode(table: Table, name: str, column: Column, categorical: Sequence[str]) -> Encoded:
    """A column as values of an example."""
    values, categories = column
    if categories is None:
        if name not in categorical:
            values = values if values.dtype == np.bool_ else values.astype(np.float64)
            if values.dtype != np.bool_ and np.abs(values).max() > np.finfo(np.float32).max:
                shown = printable(name)
                raise DataError(f"{table.where}column {shown} is too large for 32-bit floats")
            return Encoded(name, values)
        levels, values = np.unique(values, return_inverse=True)
        categories = np.array([_show(level) for level in levels.tolist()])
    if len(categories) > MAX_CATEGORIES and name not in categorical:
        raise DataError(
            f"{table.where}column {printable(name)} has {len(categories):,} different texts, such "
            f"as {printable(str(categories[0]))[:40]!r}: leave it out of --columns, or name it in "
            "--categorical"
        )
    return Encoded(name, values, categories.tolist())


def _show(level: Any) -> str:
    """A number as a text: 3 for 3.0."""
    return str(int(level)) if isinstance(level, float) and level.is_integer() else str(level)


def _labels(table: Table, name: str, column: Column) -> Array:
    """Labels as split_arrays takes them."""
    if column.categories is not None:
        return np.asarray(column.categories[column.values])
    return column.values if column.values.dtype == np.bool_ else _whole(table, name, column.values)


def _levels(table: Table, name: str, column: Column) -> Array:
    """The levels of a factor, whole numbers [n]."""
    if column.categories is not None:
        return column.values
    return _whole(table, name, column.values)


def _whole(table: Table, name: str, values: Array) -> Array:
    """Whole numbers as int64, [n]; DataError for others."""
    if values.dtype.kind == "f" and not (values == np.rint(values)).all():
        raise DataError(
            f"{table.where}column {printable(name)} holds numbers that are not whole: a label or a "
            "factor is whole numbers, texts, or true and false"
        )
    return values.astype(np.int64)


def _describe(table: Table, parts: Sequence[Encoded]) -> list[str]:
    """What the columns were taken for."""
    groups: Mapping[str, list[str]] = {
        "numbers": [p.column for p in parts if not p.fixed],
        "true or false": [p.column for p in parts if p.fixed and not p.categories],
        "one-hot": [f"{p.column} ({len(p.categories)})" for p in parts if p.categories],
    }
    shown = [f"{kind}: {_some(names)}" for kind, names in groups.items() if names]
    notes = [f"columns taken for {'; '.join(shown)}"]
    if table.unnamed:
        notes.append("left out a column without a name, which looks like row numbers of pandas")
    return notes + [note for note in (part.note() for part in parts) if note][:5]


def _some(names: Sequence[Any]) -> str:
    more = f", and {len(names) - 10:,} more" if len(names) > 10 else ""
    return printable(", ".join(names[:10])) + more
