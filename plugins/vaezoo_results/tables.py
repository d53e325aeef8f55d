"""Files of columns, written and read in pieces: .npz, .npy, .safetensors, .csv and .parquet.

A column is an array, [n, ...]. Where columns have single values (.csv, .parquet), the values of an
example are columns of their own: `mean_0`, `mean_1`, ...
"""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vaezoo.errors import RunError
from vaezoo.io import atomic_write, open_regular, require_extra

from .sources import TABLES

Columns = Mapping[str, NDArray[Any]]

ROWS = 4096
"""Examples that are read at once."""
_GROUP = 16_384
"""Rows of a group in a .parquet file, at least."""
_ARRAY = ("descr", "fortran_order", "shape")


def write_table(path: Path, pieces: Iterator[Columns], count: int) -> dict[str, list[int]]:
    """Write columns to a file, by its ending; returns the shape of each.

    pieces: columns of the same names, types and shapes, with `count` rows together. Nothing is left
    if they raise an error. A .safetensors file has numbers only, and no names of examples.
    """
    shapes: dict[str, list[int]] = {}

    def write(temporary: Path) -> None:
        with ExitStack() as stack:
            writer, done = None, 0
            for piece in pieces:
                if path.suffix.lower() == ".safetensors":
                    piece = {name: x for name, x in piece.items() if x.dtype.kind in "iuf"}
                if writer is None:
                    writer = _WRITERS[path.suffix.lower()](temporary, piece, count, stack)
                    shapes.update({n: [count, *x.shape[1:]] for n, x in piece.items()})
                writer.append(piece)
                done += len(next(iter(piece.values())))
            assert writer is not None
            assert done == count
            writer.finish()

    atomic_write(path, write)
    return shapes


class _Writer(ABC):
    """Writes pieces to `path`. first: a piece, for the types. stack: closes what is open."""

    def __init__(self, path: Path, first: Columns, count: int, stack: ExitStack) -> None:
        self.path, self.count, self.stack = path, count, stack

    @abstractmethod
    def append(self, piece: Columns) -> None:
        """Write the next rows."""

    def finish(self) -> None:
        """Complete the file."""
        self.stack.close()


class _Npy(_Writer):
    def __init__(self, path: Path, first: Columns, count: int, stack: ExitStack) -> None:
        super().__init__(path, first, count, stack)
        (values,) = first.values()
        self.file = _start_array(path, values, count, stack)

    def append(self, piece: Columns) -> None:
        (values,) = piece.values()
        self.file.write(np.ascontiguousarray(values).tobytes())


class _Npz(_Writer):
    """Each array grows in a file of its own, because a zip file holds one after another."""

    def __init__(self, path: Path, first: Columns, count: int, stack: ExitStack) -> None:
        super().__init__(path, first, count, stack)
        self.files: dict[str, tuple[Path, IO[bytes]]] = {}
        for number, (name, values) in enumerate(first.items()):
            part = path.with_name(f"{path.name}.{number}.tmp")
            stack.callback(part.unlink, missing_ok=True)
            self.files[name] = part, _start_array(part, values, count, stack)

    def append(self, piece: Columns) -> None:
        for name, values in piece.items():
            self.files[name][1].write(np.ascontiguousarray(values).tobytes())

    def finish(self) -> None:
        with zipfile.ZipFile(self.path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, (part, file) in self.files.items():
                file.close()
                # Without the time, so that equal results are equal files.
                info = zipfile.ZipInfo(f"{name}.npy")
                with part.open("rb") as source, archive.open(info, "w", force_zip64=True) as entry:
                    shutil.copyfileobj(source, entry, 1 << 20)
                part.unlink()
        super().finish()


def _start_array(path: Path, values: NDArray[Any], count: int, stack: ExitStack) -> IO[bytes]:
    """A file with the header of an array of `count` rows."""
    file = stack.enter_context(path.open("wb"))
    about = (np.lib.format.dtype_to_descr(values.dtype), False, (count, *values.shape[1:]))
    np.lib.format.write_array_header_1_0(file, dict(zip(_ARRAY, about, strict=True)))
    return file


class _Safetensors(_Writer):
    """The whole header comes first, as all sizes are known; each tensor grows at its own place.

    `safetensors.save_file` would need all tensors in memory.
    """

    def __init__(self, path: Path, first: Columns, count: int, stack: ExitStack) -> None:
        super().__init__(path, first, count, stack)
        header, end = {}, 0
        self.ends: dict[str, int] = {}
        for name, values in sorted(first.items(), key=lambda item: -item[1].dtype.itemsize):
            size = count * values.dtype.itemsize * math.prod(values.shape[1:])
            kind = f"{values.dtype.kind.upper()}{values.dtype.itemsize * 8}"
            offsets = [end, end + size]
            shape = [count, *values.shape[1:]]
            header[name] = {"dtype": kind, "shape": shape, "data_offsets": offsets}
            self.ends[name], end = end, end + size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        self.file = stack.enter_context(path.open("wb"))
        self.file.write(len(text).to_bytes(8, "little") + text)
        self.ends = {name: at + 8 + len(text) for name, at in self.ends.items()}

    def append(self, piece: Columns) -> None:
        for name, values in piece.items():
            self.file.seek(self.ends[name])
            self.ends[name] += self.file.write(np.ascontiguousarray(values).tobytes())


class _Csv(_Writer):
    """float32 with 9 digits, float64 with 17: what is read again is exactly the same."""

    def __init__(self, path: Path, first: Columns, count: int, stack: ExitStack) -> None:
        super().__init__(path, first, count, stack)
        self.file = stack.enter_context(path.open("w", encoding="utf-8", newline=""))
        self.writer = csv.writer(self.file, lineterminator="\n")
        self.writer.writerow(flat_columns(first))

    def append(self, piece: Columns) -> None:
        texts = [_texts(values) for values in flat_columns(piece).values()]
        self.writer.writerows(zip(*texts, strict=True))


def _texts(values: NDArray[Any]) -> list[Any]:
    if values.dtype.kind != "f":
        return values.tolist()
    form = "%.9g" if values.dtype.itemsize <= 4 else "%.17g"
    return [form % value for value in values.tolist()]


class _Parquet(_Writer):
    def __init__(self, path: Path, first: Columns, count: int, stack: ExitStack) -> None:
        super().__init__(path, first, count, stack)
        self.arrow = require_extra("pyarrow", "a .parquet file", "parquet")
        self.schema = self._table(first).schema
        parquet = require_extra("pyarrow.parquet", "a .parquet file", "parquet")
        self.writer = stack.enter_context(parquet.ParquetWriter(path, self.schema))
        self.waiting: list[Any] = []

    def _table(self, piece: Columns) -> Any:
        return self.arrow.table(flat_columns(piece))

    def append(self, piece: Columns) -> None:
        self.waiting.append(self._table(piece))
        if sum(table.num_rows for table in self.waiting) >= _GROUP:
            self._write()

    def _write(self) -> None:
        if self.waiting:
            self.writer.write_table(self.arrow.concat_tables(self.waiting).combine_chunks())
        self.waiting = []

    def finish(self) -> None:
        self._write()
        super().finish()


_WRITERS: dict[str, type[_Writer]] = {
    ".npz": _Npz,
    ".npy": _Npy,
    ".safetensors": _Safetensors,
    ".csv": _Csv,
    ".parquet": _Parquet,
}


def flat_columns(columns: Columns) -> dict[str, NDArray[Any]]:
    """The values of an example as columns of their own, NAME_0, NAME_1, ..., in row-major order."""
    flat: dict[str, NDArray[Any]] = {}
    for name, values in columns.items():
        if values.ndim == 1:
            flat[name] = values
        else:
            rows = values.reshape(len(values), -1)
            flat |= {f"{name}_{i}": rows[:, i] for i in range(rows.shape[1])}
    return flat


class Table(ABC):
    """A file of columns that is read in pieces. RunError, in one line, if it is damaged.

    names: of its columns. count: of its rows. is_flat: whether the values of an example are columns
    of their own, so that a column is [n, values], whatever shape was written.
    """

    names: list[str]
    count: int
    is_flat = False

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def pieces(self, names: list[str]) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield these columns, some rows at a time."""


def open_table(path: Path) -> Table:
    """Open a file that `write_table` wrote, or one like it. RunError if it cannot be read."""
    kind = _TABLES.get(path.suffix.lower())
    if kind is None:
        raise RunError(f"{path}: give a file that ends in {' or '.join(TABLES)}")
    try:
        open_regular(path).close()
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}") from None
    return _guard(path, lambda: kind(path))


def read_pieces(table: Table, names: list[str]) -> Iterator[dict[str, NDArray[Any]]]:
    """The pieces of a table; RunError, in one line, if the file is damaged."""
    pieces = table.pieces(names)
    while (piece := _guard(table.path, lambda: next(pieces, None))) is not None:
        yield piece


def _guard(path: Path, read: Any) -> Any:
    from vaezoo import VaezooError

    try:
        return read()
    except VaezooError:
        raise
    except Exception as error:  # numpy, zipfile and pyarrow raise many kinds for a damaged file
        what = " ".join(str(error).split())
        raise RunError(f"{path} cannot be read: {what}") from None


class _NumpyTable(Table):
    """.npz, or .npy with one array, which is `indices` if it holds whole numbers, else `mean`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        if path.suffix.lower() == ".npz":
            with zipfile.ZipFile(path) as archive:
                found = [name for name in archive.namelist() if name.endswith(".npy")]
            self.entries: dict[str, str | None] = {n.removesuffix(".npy"): n for n in found}
        else:
            with path.open("rb") as file:
                kind = _read_header(path, file)[1].kind
            self.entries = {"indices" if kind in "iu" else "mean": None}
        self.names = [*self.entries]
        counts = set()
        for name in self.names:
            with ExitStack() as stack:
                counts.add(_read_header(path, self._open(name, stack))[0][0])
        if len(counts) != 1:
            raise RunError(f"{path}: its arrays have different lengths")
        (self.count,) = counts

    def _open(self, name: str, stack: ExitStack) -> IO[bytes]:
        entry = self.entries[name]
        if entry is None:
            return stack.enter_context(self.path.open("rb"))
        archive = stack.enter_context(zipfile.ZipFile(self.path))
        return stack.enter_context(archive.open(entry))

    def pieces(self, names: list[str]) -> Iterator[dict[str, NDArray[Any]]]:
        with ExitStack() as stack:
            files = {name: self._open(name, stack) for name in names}
            headers = {name: _read_header(self.path, file) for name, file in files.items()}
            for start in range(0, self.count, ROWS):
                rows, piece = min(ROWS, self.count - start), {}
                for name, (shape, dtype) in headers.items():
                    size = rows * dtype.itemsize * math.prod(shape[1:])
                    if len(content := files[name].read(size)) != size:
                        raise RunError(f"{self.path} is damaged: it ends too early")
                    piece[name] = np.frombuffer(content, dtype).reshape(rows, *shape[1:])
                yield piece


def _read_header(path: Path, file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """The shape and the type of an array. RunError for arrays of objects, which need pickle."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0
    if version != (1, 0):
        read = np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise RunError(f"{path} holds Python objects (pickle), which are not read")
    if fortran or not shape:
        raise RunError(f"{path}: its arrays are not [n, ...] in C order")
    return shape, dtype


class _SafetensorsTable(Table):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        from safetensors import safe_open

        with safe_open(path, "numpy") as file:
            self.names = sorted(file.keys())
            counts = {file.get_slice(name).get_shape()[0] for name in self.names}
        if len(counts) != 1:
            raise RunError(f"{path}: its tensors have different lengths")
        (self.count,) = counts

    def pieces(self, names: list[str]) -> Iterator[dict[str, NDArray[Any]]]:
        from safetensors import safe_open

        with safe_open(self.path, "numpy") as file:
            slices = {name: file.get_slice(name) for name in names}
            for start in range(0, self.count, ROWS):
                end = min(start + ROWS, self.count)
                yield {name: part[start:end] for name, part in slices.items()}


class _FlatTable(Table):
    is_flat = True

    def _group(self, header: list[str]) -> None:
        """Find the columns of each name: NAME alone, or NAME_0, NAME_1, ... in this order."""
        self.places: dict[str, list[int]] = {}
        for place, title in enumerate(header):
            found = re.fullmatch(r"(mean|std|sample|indices)_(\d+)", title)
            name = title if found is None else found[1]
            places = self.places.setdefault(name, [])
            if found is not None and int(found[2]) != len(places):
                raise RunError(f"{self.path}: column {title} is not where it belongs")
            places.append(place)
        self.names = [*self.places]


class _CsvTable(_FlatTable):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            self._group(next(reader, []))
            self.count = sum(1 for _ in reader)

    def pieces(self, names: list[str]) -> Iterator[dict[str, NDArray[Any]]]:
        with self.path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            next(reader)
            for start in range(0, self.count, ROWS):
                rows = [next(reader) for _ in range(min(ROWS, self.count - start))]
                yield {name: self._parse(name, rows, start) for name in names}

    def _parse(self, name: str, rows: list[list[str]], start: int) -> NDArray[Any]:
        places, whole = self.places[name], name in ("label", "indices")
        read: Any = int if whole else float
        values = []
        for number, row in enumerate(rows):
            try:
                values.append([read(row[place]) for place in places])
            except (ValueError, IndexError):
                raise RunError(
                    f"{self.path}, line {start + number + 2}: {name} is no number"
                ) from None
        found = np.array(values, np.int64 if whole else np.float32)
        return found[:, 0] if name == "label" else found


class _ParquetTable(_FlatTable):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.parquet = require_extra("pyarrow.parquet", "a .parquet file", "parquet")
        file = self.parquet.ParquetFile(path)
        self.header = file.schema_arrow.names
        self._group(self.header)
        self.count = file.metadata.num_rows

    def pieces(self, names: list[str]) -> Iterator[dict[str, NDArray[Any]]]:
        wanted = [self.header[place] for name in names for place in self.places[name]]
        file = self.parquet.ParquetFile(self.path)
        for batch in file.iter_batches(ROWS, columns=wanted):
            found = {title: batch.column(title).to_numpy(False) for title in wanted}
            piece = {}
            for name in names:
                rows = np.stack([found[self.header[p]] for p in self.places[name]], 1)
                piece[name] = rows[:, 0] if name == "label" else rows
            yield piece


_TABLES: dict[str, type[Table]] = {
    ".npz": _NumpyTable,
    ".npy": _NumpyTable,
    ".safetensors": _SafetensorsTable,
    ".csv": _CsvTable,
    ".parquet": _ParquetTable,
}
