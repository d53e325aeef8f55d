"""The files of a run folder: their names, and creating, locking and reading the folder."""

from __future__ import annotations

import errno
import json
import math
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vaezoo.errors import RunError, quoted
from vaezoo.io import (
    cannot_write,
    fsync_dir,
    parse_json,
    read_json,
    read_regular,
    remove_stale_tmp,
    write_json,
    write_text,
)

RUN_FORMAT = 3
"""Version of the run folder's format, in run.json. A folder of another version is refused."""

_LARGEST_METRICS = 1 << 28
"""Bytes: a million lines."""


class RunFolder:
    """The folder of one run, with its configuration, metrics, pictures, weights and checkpoints.

    is_writer: whether this process writes into it. Rank 0 does; for others, methods do nothing.
    made_parent, was_empty: whether its parent was made for it, or it was an empty folder before.
    """

    def __init__(
        self, path: Path, made_parent: bool = False, is_writer: bool = True, was_empty: bool = False
    ) -> None:
        self.path = path
        self.made_parent = made_parent
        self.was_empty = was_empty
        self.is_writer = is_writer
        self.config = path / "config.yaml"
        self.metadata = path / "run.json"
        self.metrics = path / "metrics.jsonl"
        self.summary = path / "summary.json"
        self.weights = path / "model.safetensors"
        self.init = path / "init.safetensors"  # weights of another run, until the first checkpoint
        self.checkpoints = path / "checkpoint"
        self.samplers = path / "samplers"
        self.samples = path / "samples.png"
        self.reconstructions = path / "reconstructions.png"
        self.curves = path / "curves.png"
        self.traceback = path / "traceback.txt"
        self.listeners: list[Callable[[Mapping[str, Any]], None]] = []
        """Each is called with every line of metrics.jsonl after it was written."""

    @classmethod
    def create(
        cls,
        path: Path | None,
        default_name: str,
        config: str,
        record: Mapping[str, Any],
        prepare: Callable[[RunFolder], None] = lambda folder: None,
    ) -> RunFolder:
        """Create the folder `path`, or the next free `runs/<default_name>-NNN`.

        prepare: writes what must be in the folder before it is a run.
        It is renamed to its name when it has its configuration, so that every run folder can be
        resumed. An empty folder is used as it is: it may be a mount point. RunError if it exists
        otherwise, or cannot be created.
        """
        if path is not None:
            check_absent(path)
            if _is_empty(path):
                folder = cls(path, was_empty=True)
                try:
                    folder.checkpoints.mkdir()  # of two processes, one can make it
                except OSError as error:
                    raise cannot_write(path, error) from error
                prepare(folder)
                folder.write_start(config, record)
                return folder
        parent = Path("runs") if path is None else path.parent
        made_parent = not parent.exists()
        temporary = parent / f".{default_name if path is None else path.name}.{os.getpid()}.tmp"
        try:
            parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            prepare(cls(temporary))
            cls(temporary).write_start(config, record)
            if path is not None:
                temporary.rename(path)
            else:
                path = _rename_to_next(temporary, parent / default_name)
            fsync_dir(parent)
        except OSError as error:
            if path is not None:
                check_absent(path)
            raise cannot_write(path or parent, error) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return cls(path, made_parent)

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """Open the folder of a run. RunError if it does not exist or has no configuration."""
        if not path.is_dir():
            raise RunError(f"there is no run folder {path}")
        folder = cls(path)
        if not folder.config.is_file():
            raise RunError(f"{path} is not a run folder: it has no {folder.config.name}")
        return folder

    def check_own(self) -> None:
        """RunError if a file of the run is a symbolic link, so that nothing outside is changed."""
        for folder in (self.path, self.checkpoints):
            for path in sorted(folder.glob("*")):
                if path.is_symlink():
                    raise RunError(f"{path} is a symbolic link: replace it by the file itself")

    def write_start(self, config: str, record: Mapping[str, Any]) -> None:
        if self.is_writer:
            write_json(self.metadata, record)
            write_text(self.config, config)  # the last: with it, the folder is a run

    def read_metadata(self) -> dict[str, Any]:
        """The content of run.json. RunError if it is damaged, or the run has another format."""
        metadata = read_json(self.metadata)
        found = metadata.get("format", 1)
        if found != RUN_FORMAT:
            later = isinstance(found, int) and found > RUN_FORMAT
            raise RunError(
                f"{self.path} was made by {'a later' if later else 'an earlier'} version of vaezoo "
                f"(run format {quoted(found)}; this version reads {RUN_FORMAT}): "
                f"{'update vaezoo' if later else 'train it again'}"
            )
        return metadata

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Append a line, and flush it before this returns."""
        if not self.is_writer:
            return
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        except OSError as error:
            raise cannot_write(self.metrics, error) from error
        for listener in self.listeners:
            listener(line)

    def read_metrics(self) -> list[dict[str, Any]]:
        """All complete lines so far. RunError if one is damaged."""
        try:
            return [metrics_line(line) for line in self.metrics_lines()]
        except (OSError, ValueError) as error:
            raise RunError(f"{self.metrics} is damaged: {error}") from None

    def metrics_lines(self) -> list[bytes]:
        """All complete lines so far, as bytes. OSError if the file is too large."""
        text = read_regular(self.metrics, _LARGEST_METRICS) if self.metrics.exists() else b""
        # The part after the last line break is not complete: its process writes, or was killed.
        return text.split(b"\n")[:-1]

    def metrics_bytes(self) -> int:
        return self.metrics.stat().st_size if self.is_writer and self.metrics.exists() else 0

    def sync_metrics(self) -> None:
        """Sync the lines to disk, which must come before the checkpoint that counts them."""
        try:
            with self.metrics.open("ab") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(self.metrics, error) from error

    def truncate_metrics(self, size: int) -> None:
        """Remove the lines after a checkpoint, which will be written again."""
        if self.is_writer and self.metrics.exists():
            os.truncate(self.metrics, size)

    @property
    def has_progress(self) -> bool:
        """Whether the folder has metrics, weights or a checkpoint."""
        found = (self.metrics, self.weights, *self.checkpoints.glob("step-*"))
        return self.is_writer and any(path.exists() for path in found)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the folder for this process; the system unlocks it when the process ends.

        RunError names the process that holds the lock.
        """
        if not self.is_writer:
            yield
            return
        from filelock import FileLock, Timeout

        holder = self.checkpoints / ".pid"
        lock = FileLock(self.checkpoints / ".lock", timeout=0)
        try:
            self.checkpoints.mkdir(exist_ok=True)
            lock.acquire()
            holder.write_text(f"{os.getpid()} on {platform.node()}", encoding="utf-8")
        except Timeout:
            who = ""
            with suppress(OSError, ValueError):
                who = holder.read_text(encoding="utf-8")[:80]
            raise RunError(f"{self.path} is being trained by process {who or 'unknown'}") from None
        except OSError as error:
            lock.release()
            raise cannot_write(self.checkpoints, error) from error
        try:
            for folder in (self.path, self.checkpoints):
                remove_stale_tmp(folder)
            yield
        finally:
            lock.release()

    def remove(self) -> None:
        """Remove what `create` made: the folder or what is in it, and its parent if empty."""
        if not self.is_writer:
            return
        for path in list(self.path.iterdir()) if self.was_empty else [self.path]:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        if self.made_parent and not any(self.path.parent.iterdir()):
            self.path.parent.rmdir()


def _rename_to_next(folder: Path, name: Path) -> Path:
    """Rename a folder, which is not empty, to the first free `<name>-NNN`."""
    for number in range(1, 1_000_000):
        path = name.with_name(f"{name.name}-{number:03d}")
        if os.path.lexists(path):
            continue
        try:
            return folder.rename(path)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
    raise RunError(f"{name.parent} has no free run number: give --out")


def metrics_line(line: bytes) -> dict[str, Any]:
    """Parse a line of metrics.jsonl. ValueError if `kind`, `step` or `terms` is wrong."""
    value = parse_json(line)
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
        raise ValueError("a line has no kind")
    step, terms = value.get("step"), value.get("terms")
    if type(step) is not int or not 0 <= step < 2**63:
        raise ValueError("a line has no step")
    if not isinstance(terms, dict) or not all(
        math.isfinite(term)
        if isinstance(term, float)
        else term is None or (type(term) is int and abs(term) < 2**63)
        for term in terms.values()
    ):
        raise ValueError("a line has terms that are not numbers")
    return value


def check_absent(path: Path) -> None:
    """RunError unless `path` is free or an empty folder, so that no file is overwritten."""
    if os.path.lexists(path) and not _is_empty(path):
        raise RunError(f"{path} exists already: give another --out, or --resume {path} to go on")


def _is_empty(path: Path) -> bool:
    """Whether it is a folder with nothing in it."""
    try:
        return path.is_dir() and not any(path.iterdir())
    except OSError as error:
        raise cannot_write(path, error) from error
