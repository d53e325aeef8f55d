"""A folder of latents: .safetensors files of equal length, and an index with their statistics."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from vaezoo.evaluation.accumulators import RunningMoments
from vaezoo.io import write_json
from vaezoo_export.formats import check_folder, replaced_folder

from .tables import Columns, write_table

INDEX = "index.json"
_SHARD = re.compile(r"\d{5,}\.safetensors")


def check_shards(folder: Path, overwrite: bool) -> None:
    """RunError unless the folder can be written, and nothing but older latents is lost by it."""
    check_folder(folder, overwrite, _held(folder))


def _held(folder: Path) -> tuple[str, ...]:
    """The names of the files of older latents."""
    names = [one.name for one in folder.glob("*.safetensors")]
    return INDEX, *(name for name in names if _SHARD.fullmatch(name))


def write_shards(
    folder: Path,
    pieces: Iterator[Columns],
    count: int,
    *,
    size: int,
    latents: tuple[str, ...],
    about: Mapping[str, Any],
) -> dict[str, list[int]]:
    """Write columns to 00000.safetensors, ..., `size` rows in each; returns the shape of each.

    pieces: as for `write_table`; names of examples are left out. latents: the columns whose mean
    and standard deviation in each channel, over all rows and positions, go to the index. about:
    more values of the index. The folder appears when it is complete, and memory does not grow.
    """
    moments = {name: RunningMoments() for name in latents}
    shards: list[dict[str, Any]] = []
    shapes: dict[str, list[int]] = {}
    rows = _Rows(pieces, moments)
    with replaced_folder(folder, _held(folder)) as new:
        for start in range(0, count, size):
            file, length = f"{len(shards):05}.safetensors", min(size, count - start)
            shapes = write_table(new / file, rows.take(length), length)
            shards.append({"file": file, "examples": length})
        shapes = {name: [count, *shape[1:]] for name, shape in shapes.items()}
        statistics = {
            name: {"mean": found.mean.tolist(), "std": found.variance.sqrt().tolist()}
            for name, found in moments.items()
        }
        index = {
            "examples": count,
            "shard_size": size,
            "shards": shards,
            "columns": shapes,
            "statistics": statistics,
        }
        write_json(new / INDEX, {**index, **about})
    return shapes


class _Rows:
    """Pieces cut anew, so that each shard gets its rows; moments see each piece once."""

    def __init__(self, pieces: Iterator[Columns], moments: Mapping[str, RunningMoments]) -> None:
        self.pieces, self.moments = pieces, moments
        self.rest: Columns = {}

    def take(self, count: int) -> Iterator[Columns]:
        """The next rows, `count` of them, in pieces."""
        while count:
            if not self.rest:
                self.rest = next(self.pieces)
                for name, moments in self.moments.items():
                    values = torch.from_numpy(self.rest[name])
                    moments.update(values.movedim(1, -1).reshape(-1, values.shape[1]))
            length = len(next(iter(self.rest.values())))
            yield {name: values[:count] for name, values in self.rest.items()}
            self.rest = {name: x[count:] for name, x in self.rest.items()} if length > count else {}
            count -= min(count, length)
