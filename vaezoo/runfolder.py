"""The files of a run folder: what is where, and how it comes there."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vaezoo.errors import RunError
from vaezoo.files import cannot_write, parse_json, read_regular, write_json, write_text

_LARGEST_METRICS = 1 << 28
"""Bytes: a million lines."""


class RunFolder:
    """One run: its configuration, numbers, pictures, weights and checkpoint."""

    def __init__(self, path: Path, made_parent: bool = False) -> None:
        self.path = path
        self.made_parent = made_parent
        self.config = path / "config.yaml"
        self.record = path / "run.json"
        self.metrics = path / "metrics.jsonl"
        self.summary = path / "summary.json"
        self.weights = path / "model.safetensors"
        self.checkpoints = path / "checkpoint"
        self.samples = path / "samples.png"
        self.reconstructions = path / "reconstructions.png"
        self.curves = path / "curves.png"

    @classmethod
    def create(cls, path: Path | None, default_name: str) -> RunFolder:
        """A new folder: `path` itself, or the next free `runs/<default_name>-NNN`.

        RunError if it exists or cannot be made.
        """
        if path is not None:
            check_absent(path)
        parent = Path("runs") if path is None else path.parent
        made_parent = not parent.exists()
        try:
            parent.mkdir(parents=True, exist_ok=True)
            if path is not None:
                path.mkdir()
                return cls(path, made_parent)
            for number in range(1, 1_000_000):
                path = parent / f"{default_name}-{number:03d}"
                try:
                    path.mkdir()
                except FileExistsError:
                    continue
                return cls(path, made_parent)
        except OSError as error:
            raise cannot_write(path or parent, error) from error
        raise RunError(f"{parent} is full of runs: give --out")

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """A folder that holds a run; RunError if there is none."""
        if not path.is_dir():
            raise RunError(f"there is no run folder {path}")
        folder = cls(path)
        if not folder.config.is_file():
            raise RunError(f"{path} is no run folder: it has no {folder.config.name}")
        return folder

    def check_own(self) -> None:
        """RunError if a file of the run is a link: going on would write to where it leads."""
        for folder in (self.path, self.checkpoints):
            for path in sorted(folder.glob("*")):
                if path.is_symlink():
                    raise RunError(f"{path} is a link: a run goes on only in files of its own")

    def write_start(self, config: str, record: Mapping[str, Any]) -> None:
        write_text(self.config, config)
        write_json(self.record, record)

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """One line more, on disk before this returns."""
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        except OSError as error:
            raise cannot_write(self.metrics, error) from error

    def read_metrics(self) -> list[dict[str, Any]]:
        """All lines so far; RunError if one is damaged."""
        try:
            text = read_regular(self.metrics, _LARGEST_METRICS) if self.metrics.exists() else b""
            return [_metrics_line(line) for line in text.splitlines()]
        except (OSError, ValueError) as error:
            raise RunError(f"{self.metrics} is damaged: {error}") from None

    def metrics_bytes(self) -> int:
        return self.metrics.stat().st_size if self.metrics.exists() else 0

    def cut_metrics(self, size: int) -> None:
        """Forget the lines after a checkpoint: they will be written again."""
        if self.metrics_bytes() < size:
            raise RunError(f"{self.metrics} is shorter than its checkpoint says")
        if self.metrics.exists():
            os.truncate(self.metrics, size)

    def remove(self) -> None:
        """Take the folder away, and its parent if `create` made it and nothing else is there."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self.made_parent and not any(self.path.parent.iterdir()):
            self.path.parent.rmdir()


def _metrics_line(line: bytes) -> dict[str, Any]:
    """A line of metrics.jsonl, with what everyone relies on. ValueError when it is not there."""
    value = parse_json(line)
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
        raise ValueError("a line of it is of no kind")
    step, terms = value.get("step"), value.get("terms")
    if type(step) is not int or not 0 <= step < 2**63:
        raise ValueError("a line of it has no step")
    if not isinstance(terms, dict) or not all(map(_is_term, terms.values())):
        raise ValueError("a line of it has terms that are no numbers")
    return value


def _is_term(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or (type(value) is int and abs(value) < 2**63)


def check_absent(path: Path) -> None:
    """RunError if there is anything at `path`, so that nothing of the user's is written over."""
    if os.path.lexists(path):
        raise RunError(f"{path} exists already: give another --out, or --resume {path} to go on")
