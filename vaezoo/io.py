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
"""Bytes. What vaezoo writes is far smaller; as values, JSON can take twenty times its size."""


def full_path(path: Path | str) -> Path:
    """From the root, ~ and ~user being homes; of a user who is not known here, a name as any."""
    return Path(os.path.expanduser(path)).absolute()


def open_regular(path: Path) -> BinaryIO:
    """A file, to be read. OSError for what is none: a pipe keeps its reader waiting for ever, and
    a device has no end."""
    try:
        # Without O_NONBLOCK the opening itself waits for whoever writes into a pipe.
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


def read_regular(path: Path, most: int) -> bytes:
    """The content of a file of at most so many bytes. OSError for a larger one, unread."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise OSError(errno.EFBIG, f"it is larger than {most:,} bytes")
        return file.read(most)


def atomic_write(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file under a temporary name, flush it to disk, then rename it.

    RunError when the disk is full or the folder cannot be written; what stood at `path` stays.
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
    """Bring the names in a folder to the disk, where the system can: a rename is one of them."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # no such thing on this file system
            raise
    finally:
        os.close(descriptor)


def remove_stale_tmp(folder: Path) -> None:
    """Remove the temporary files and folders that a killed process left; none may be in use."""
    for remains in folder.glob(".*.tmp"):
        if remains.is_dir() and not remains.is_symlink():
            shutil.rmtree(remains, ignore_errors=True)
        else:
            remains.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    atomic_write(path, lambda temporary: _write_text(temporary, text))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; RunError when it is missing, damaged or something else."""
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
    """The value that JSON in UTF-8 says. ValueError for anything else, Python's NaN among it."""
    try:
        return json.loads(content.decode("utf-8"), parse_constant=_no_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def cannot_write(path: Path, error: OSError) -> RunError:
    """What to tell the user when writing failed."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunError(f"the disk is full: {path} could not be written; free some space")
    return RunError(f"cannot write {path}: {error.strerror or error}")


def _no_number(word: str) -> Any:
    raise ValueError(f"JSON has no {word}")


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


class MissingExtraError(VaezooError):
    """A package of an extra that is not installed."""


def require_extra(module: str, what: str, extra: str) -> Any:
    """The module. MissingExtraError, with the command that installs it, if it is not here.

    what: who asks, as the user has it on the line: "--method umap". extra: of vaezoo's own extras.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # What a package that is here misses by itself is its own trouble: name that.
        package = (error.name or module).partition(".")[0]
        raise MissingExtraError(
            f"{what} needs the package {package}, which is not installed: "
            f"pip install 'vaezoo[{extra}]'"
        ) from None
