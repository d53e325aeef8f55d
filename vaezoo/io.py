"""Files: atomic writes, reads with a size limit, JSON, and optional packages."""

from __future__ import annotations

import errno
import importlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from vaezoo.errors import RunError, VaezooError

LARGEST_JSON = 64 << 20
"""Bytes. Files of vaezoo are far smaller. Parsed JSON can take twenty times its size."""


def full_path(path: Path | str) -> Path:
    """The absolute path, with ~ and ~user expanded; an unknown user is kept as a plain name."""
    return Path(os.path.expanduser(path)).absolute()


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading.

    OSError for anything else: a pipe would block its reader, and a device may have no end.
    """
    try:
        # Without O_NONBLOCK, opening a pipe blocks until another process writes to it.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except ValueError:
        raise OSError(errno.EINVAL, "no file can have this name") from None
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        raise OSError(errno.EINVAL, "it is not a regular file")
    return os.fdopen(descriptor, "rb")


def read_regular(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file. OSError if it has more than `max_bytes`."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > max_bytes:
            raise OSError(errno.EFBIG, f"it is larger than {max_bytes:,} bytes")
        return file.read(max_bytes)


def atomic_write(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` write a temporary file, flush it to disk, and rename it to `path`.

    RunError when the disk is full or the folder cannot be written; the old file then stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync_dir(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def fsync_dir(folder: Path) -> None:
    """Flush the entries of a folder to disk, so that a rename survives a crash."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # this file system cannot
            raise
    finally:
        os.close(descriptor)


def remove_stale_tmp(folder: Path) -> None:
    """Remove temporary files and folders of a killed process; none may be in use."""
    for remains in folder.glob(".*.tmp"):
        if remains.is_dir() and not remains.is_symlink():
            shutil.rmtree(remains, ignore_errors=True)
        else:
            remains.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8 by `atomic_write`."""
    atomic_write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file by `atomic_write`."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file. RunError if it is missing, damaged or no object."""
    try:
        value = parse_json(read_regular(path, LARGEST_JSON))
    except FileNotFoundError:
        raise RunError(f"{path} is missing") from None
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError:
        raise RunError(f"{path} is damaged: it is not JSON") from None
    if not isinstance(value, dict):
        raise RunError(f"{path} is damaged: it does not hold an object")
    return value


def parse_json(content: bytes) -> Any:
    """Parse JSON in UTF-8. ValueError for anything else, also for NaN and Infinity."""
    try:
        return json.loads(content.decode("utf-8"), parse_constant=_no_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def cannot_write(path: Path, error: OSError) -> RunError:
    """The RunError for a failed write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunError(f"the disk is full: {path} could not be written; free some space")
    return RunError(f"cannot write {path}: {error.strerror or error}")


def _no_number(word: str) -> Any:
    raise ValueError(f"JSON has no {word}")


class MissingExtraError(VaezooError):
    """An optional package is not installed."""


def require_extra(module: str, what: str, extra: str) -> Any:
    """Import an optional module. MissingExtraError says how to install it.

    what: the option that needs it, as typed: "--method umap". extra: the extra of vaezoo.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # An installed package may miss one of its own dependencies: name that one.
        package = (error.name or module).partition(".")[0]
        raise MissingExtraError(
            f"{what} needs the package {package}, which is not installed: "
            f"pip install 'vaezoo[{extra}]'"
        ) from None
