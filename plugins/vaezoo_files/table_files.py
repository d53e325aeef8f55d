"""The columns of a table: from .csv and .parquet files, and from DataFrames."""

from __future__ import annotations

import codecs
import csv
import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaezoo.errors import DataError, printable
from vaezoo.io import open_regular, require_extra
from vaezoo.runtime.memory import available_memory

Array = NDArray[Any]

MISSING = frozenset(
    (
        *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND"),
        *("1.#QNAN", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    )
)
"""Cells of a .csv file that stand for a missing value, as pandas reads them."""

_BOOLS = frozenset(("true", "false", "True", "False", "TRUE", "FALSE"))
_DELIMITERS = ",;\t|"
_ROWS = 8192
"""Rows of a .csv file that are parsed together."""

_INDEX = ("", "__index_level_0__")
"""Names of a column of row numbers that pandas wrote."""


class Column(NamedTuple):
    """A column. values: numbers or bools [n], or for text the numbers of its categories, sorted.

    categories: the texts; None if the column is not text.
    """

    values: Array
    categories: Array | None = None


class Table(ABC):
    """A table whose columns are read when they are needed.

    where: what error messages begin with. names: of all columns, in their order. unnamed: how many
    columns of row numbers were left out. rows: how messages name a row.
    """

    where: str = ""
    rows = "row {} (counted from 0)"

    def __init__(self, names: Sequence[str]) -> None:
        self.all_names = [str(name) for name in names]
        self.names = [name for name in self.all_names if name not in _INDEX]
        self.unnamed = len(self.all_names) - len(self.names)
        for number, name in enumerate(self.names):
            if name in self.names[:number]:
                raise DataError(f"{self.where}two columns have the name {printable(name)!r}")
        if not self.names:
            raise DataError(f"{self.where}the table has no columns with a name")

    @abstractmethod
    def read(self, names: Sequence[str], categorical: Sequence[str]) -> dict[str, Column]:
        """The columns of these names. DataError for a missing value, and for what is no value."""

    def missing(self, name: str, row: int, cell: str = "") -> DataError:
        """The error for a missing value."""
        shown = f" ({cell!r})" if cell else ""
        return DataError(
            f"{self.where}column {printable(name)} has no value in {self.rows.format(row)}{shown}: "
            "fill it in, drop the row, or leave the column out of --columns"
        )

    def column(self, name: str, values: Array, missing: Array) -> Column:
        """A column of an array of numbers, bools, texts or objects. missing: bool [n]."""
        if values.dtype.kind == "f":
            missing = missing | np.isnan(values)
        if missing.any():
            raise self.missing(name, int(missing.argmax()))
        if values.dtype.kind == "O":
            values = self._plain(name, values)
        if values.dtype.kind in "UT":
            categories, index = np.unique(values.astype(str), return_inverse=True)
            return Column(index, categories)
        if values.dtype.kind not in "biuf":
            raise DataError(
                f"{self.where}column {printable(name)} is of {values.dtype}: numbers, texts and "
                "true or false are taken: convert it, or leave it out of --columns"
            )
        if values.dtype.kind == "f" and np.isinf(values).any():
            row = self.rows.format(int(np.isinf(values).argmax()))
            raise DataError(f"{self.where}column {printable(name)} holds infinity in {row}")
        return Column(values)

    def _plain(self, name: str, values: Array) -> Array:
        """An array of objects of one type as one of texts, bools or numbers."""
        items = values.tolist()
        for kind, dtype in ((str, str), (bool, bool), ((int, float), np.float64)):
            right = [isinstance(item, kind) for item in items]
            if all(right):
                return np.array(items, dtype)
            if right[0] and not (dtype is np.float64 and isinstance(items[0], bool)):
                row = right.index(False)
                raise DataError(
                    f"{self.where}column {printable(name)} holds {type(items[0]).__name__} and "
                    f"{type(items[row]).__name__}, first in {self.rows.format(row)}: give it one "
                    "type, as by .astype(str)"
                )
        raise DataError(
            f"{self.where}column {printable(name)} holds objects of type "
            f"{type(items[0]).__name__}: numbers, texts and true or false are taken"
        )


class FrameTable(Table):
    """A DataFrame of pandas or polars."""

    def __init__(self, frame: Any) -> None:
        self.frame = frame
        super().__init__([*frame.columns])

    def read(self, names: Sequence[str], categorical: Sequence[str]) -> dict[str, Column]:
        found = {}
        for name in names:
            position = self.all_names.index(name)
            if hasattr(self.frame, "iloc"):
                series = self.frame.iloc[:, position]
                missing = series.isna().to_numpy()
                if str(series.dtype) == "category" and not missing.any():
                    series = series.astype(str)
            else:
                series = self.frame.to_series(position)
                missing = series.is_null().to_numpy()
            found[name] = self.column(name, series.to_numpy(), np.asarray(missing, bool))
        return found


class ParquetTable(Table):
    """A .parquet file, read by pyarrow."""

    def __init__(self, path: Path) -> None:
        self.where = f"{path}: "
        self.parquet = require_extra("pyarrow.parquet", f"{path}", "parquet")
        self.path = path
        with _reading(path, "parquet"), open_regular(path) as file:
            schema = self.parquet.read_schema(file)
        super().__init__(schema.names)

    def read(self, names: Sequence[str], categorical: Sequence[str]) -> dict[str, Column]:
        with _reading(self.path, "parquet"), open_regular(self.path) as file:
            content = self.parquet.ParquetFile(file)
            check_size(self.where, content.metadata.num_rows, len(names))
            table = content.read(columns=[*names])
            arrays = {name: table.column(name) for name in names}
            pairs = {
                name: (array.to_numpy(), np.asarray(array.is_null().to_numpy(), bool))
                for name, array in arrays.items()
            }
        return {name: self.column(name, *pair) for name, pair in pairs.items()}


class CsvTable(Table):
    """A .csv file: a line of names, then a line for each row. It is read twice.

    The first time decides what each column holds: numbers; true and false; or texts. delimiter: the
    text between cells; "" for the one of , ; | and tab that the first line has most of.
    """

    rows = "line {}"

    def __init__(self, path: Path, delimiter: str, encoding: str) -> None:
        self.path, self.where = path, f"{path}: "
        try:
            name = codecs.lookup(encoding).name
        except LookupError:
            raise DataError(f"--encoding {encoding}: there is no such encoding") from None
        self.encoding = "utf-8-sig" if name == "utf-8" else name
        with self._text() as file:
            first = file.readline()
        counts = {sign: len(next(csv.reader([first], delimiter=sign), [])) for sign in _DELIMITERS}
        self.delimiter = delimiter or max(counts, key=lambda sign: counts[sign])
        header = next(self._lines(), (1, []))[1]
        super().__init__([cell.strip() for cell in header])
        if all(map(_is_number, self.names)):
            raise DataError(
                f"{path}: its first line holds numbers, not the names of the columns: add a line "
                "with names"
            )

    def read(self, names: Sequence[str], categorical: Sequence[str]) -> dict[str, Column]:
        at = {name: self.all_names.index(name) for name in names}
        kinds = dict.fromkeys(names, "number or bool")
        odd: dict[str, tuple[int, str]] = {}
        numbers = dict.fromkeys(names, 0)
        count = 0
        for lines, cells in self._chunks():
            count += len(lines)
            for name, position in at.items():
                column = cells[position]
                if not MISSING.isdisjoint(column):
                    row = next(i for i, cell in enumerate(column) if cell in MISSING)
                    raise self.missing(name, lines[row], column[row])
                found = _kind(column)
                if kinds[name] not in (found, "number or bool"):
                    found = "text"
                kinds[name] = found
                if found == "text":
                    right = [_is_number(cell) for cell in column]
                    numbers[name] += sum(right)
                    if name not in odd and not all(right):
                        odd[name] = lines[right.index(False)], column[right.index(False)]
                else:
                    numbers[name] += len(column)
        if not count:
            raise DataError(f"{self.where}it has no rows below the names of the columns")
        for name, (line, cell) in odd.items():
            if 2 * numbers[name] > count and name not in categorical:
                raise DataError(
                    f"{self.where}column {printable(name)} holds numbers, but {printable(cell)!r} "
                    f"in line {line}: correct it, or name the column in --categorical"
                )
        check_size(self.where, count, len(names))
        return self._values(at, kinds, count)

    def _values(
        self, at: Mapping[str, int], kinds: Mapping[str, str], count: int
    ) -> dict[str, Column]:
        types = {"number": np.float64, "bool": np.bool_, "text": np.int64}
        values: dict[str, Array] = {name: np.empty(count, types[kinds[name]]) for name in at}
        known: dict[str, dict[str, int]] = {name: {} for name in at}
        start = 0
        for lines, cells in self._chunks():
            stop = start + len(lines)
            for name, position in at.items():
                column, texts = cells[position], known[name]
                if kinds[name] == "number":
                    part: list[Any] = [float(cell) for cell in column]
                elif kinds[name] == "bool":
                    part = [cell in ("true", "True", "TRUE") for cell in column]
                else:
                    part = [texts.setdefault(cell, len(texts)) for cell in column]
                values[name][start:stop] = part
            start = stop
        found = {}
        for name, array in values.items():
            if kinds[name] == "text":
                order = np.argsort(np.array([*known[name]]))
                found[name] = Column(np.argsort(order)[array], np.array([*known[name]])[order])
            else:
                if not np.isfinite(array).all():
                    raise DataError(f"{self.where}column {printable(name)} holds infinity")
                found[name] = Column(array)
        return found

    def _chunks(self) -> Iterator[tuple[list[int], list[tuple[str, ...]]]]:
        """The numbers of some lines, and their cells by column."""
        lines = itertools.islice(self._lines(), 1, None)
        while chunk := [*itertools.islice(lines, _ROWS)]:
            for number, row in chunk:
                if len(row) != len(self.all_names):
                    raise DataError(
                        f"{self.where}line {number} has {len(row)} cells, and the first line names "
                        f"{len(self.all_names)} columns: --delimiter says what is between cells"
                    )
            columns = zip(*(row for _, row in chunk), strict=True)
            yield (
                [number for number, _ in chunk],
                [tuple(cell.strip() for cell in column) for column in columns],
            )

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        """The lines that are not empty, with the number of each; a text in quotes may have more."""
        with self._text() as file:
            reader = csv.reader(file, delimiter=self.delimiter, strict=True)
            number = 1
            for row in reader:
                if row:
                    yield number, row
                number = reader.line_num + 1

    @contextmanager
    def _text(self) -> Iterator[TextIOWrapper]:
        with (
            _reading(self.path, "csv"),
            open_regular(self.path) as file,
            TextIOWrapper(file, encoding=self.encoding, newline="") as text,
        ):
            yield text


def open_table(path: Path, delimiter: str, encoding: str) -> Table:
    """Open the file of a table by its ending."""
    ending = path.suffix.lower()
    if ending not in (".csv", ".tsv", ".txt", ".parquet"):
        raise DataError(f"{path}: a table is a file that ends in .csv, .tsv, .txt or .parquet")
    if not os.path.isfile(path):
        raise DataError(f"--root {path} is not a file: a table is a .csv or .parquet file")
    if ending == ".parquet":
        return ParquetTable(path)
    return CsvTable(path, delimiter or ("\t" if ending == ".tsv" else ""), encoding)


def check_size(where: str, rows: int, columns: int, size: int = 16) -> None:
    """DataError if so many values, of `size` bytes each, do not fit in the memory."""
    if rows * columns * size > available_memory():
        raise DataError(
            f"{where}{rows:,} rows of {columns:,} values do not fit in memory: name fewer columns "
            "in --columns, or use fewer rows"
        )


@contextmanager
def _reading(path: Path, form: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except UnicodeDecodeError:
        advice = "give --encoding, as latin-1, or store it as UTF-8"
        raise DataError(f"{path} is not text in this encoding: {advice}") from None
    except MemoryError:
        raise DataError(f"{path} does not fit in memory") from None
    except Exception as error:  # csv and pyarrow raise errors of any kind for damaged files
        reason = printable(" ".join(str(error).split())[:200]) or type(error).__name__
        raise DataError(f"cannot read {path} as {form}: {reason}") from None


def _kind(cells: Sequence[str]) -> str:
    if _BOOLS.issuperset(cells):
        return "bool"
    try:
        for _ in map(float, cells):
            pass
    except ValueError:
        return "text"
    # float() takes 1_000 for a number.
    return "text" if any("_" in cell for cell in cells) else "number"


def _is_number(cell: str) -> bool:
    return _kind((cell,)) == "number"
