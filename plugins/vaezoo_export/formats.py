"""The formats of `vaezoo export`: its own, and those that other plugins bring. No torch here."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pluggy

from vaezoo.cli.options import check_writable
from vaezoo.errors import OptionError, RunError
from vaezoo.io import cannot_write
from vaezoo.plugins.registry import registry

_PROJECT = "vaezoo"
"""The name of the hook markers of plugins, as in `vaezoo.hookimpl`."""


@dataclass(frozen=True, kw_only=True)
class ExportFormat:
    """A format of `vaezoo export`, for a plugin that brings one.

    name: as in `--format NAME`. ending: of FILE, as ".onnx"; "" if a folder is written.
    target: `package.module:function`, imported when it is used. The function takes the opened run
        and the path, and returns a list of `Exported`. With by_part it also takes the part, and
        writes it to that path.
    by_part: whether the encoder and the decoder are files of their own.
    files: the names of the files in a folder; `--overwrite` replaces a folder with no others.

    The plugin's module registers it by a hook of this plugin, which core vaezoo does not know:
    `@hookimpl(optionalhook=True)` before `def register_export_formats(register)`. `register` takes
    an ExportFormat.
    """

    name: str
    ending: str
    target: str
    by_part: bool = False
    files: tuple[str, ...] = ()

    def load(self) -> Callable[..., Any]:
        """Import the function that writes."""
        module, _, name = self.target.partition(":")
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return found

    @property
    def metavar(self) -> str:
        """What to give as the path: FILE.onnx, or DIR."""
        return f"FILE{self.ending}" if self.ending else "DIR"


OWN = (
    ExportFormat(
        name="onnx", ending=".onnx", target="vaezoo_export.export:export_onnx", by_part=True
    ),
    ExportFormat(
        name="torch-export",
        ending=".pt2",
        target="vaezoo_export.export:export_program",
        by_part=True,
    ),
    ExportFormat(
        name="safetensors",
        ending=".safetensors",
        target="vaezoo_export.export:export_weights",
    ),
)


class _Hooks:
    @staticmethod
    @pluggy.HookspecMarker(_PROJECT)
    def register_export_formats(register: Callable[[ExportFormat], None]) -> None:
        """Call `register` with each format."""


def find_formats() -> dict[str, ExportFormat]:
    """All formats by their names: those of this plugin first.

    OptionError if a plugin brings the name or the ending of another, or its hook fails.
    """
    found = {own.name: own for own in OWN}
    for record in registry().records:
        module = sys.modules.get(record.module)
        if module is None or record.status != "loaded":
            continue
        manager = pluggy.PluginManager(_PROJECT)
        manager.add_hookspecs(_Hooks)
        manager.register(module)
        new: list[ExportFormat] = []
        try:
            manager.hook.register_export_formats(register=new.append)
        except Exception as error:  # of the plugin
            raise OptionError(
                f"plugin {record.name!r} cannot register its export formats: {error}"
            ) from error
        for one in new:
            if one.name in found or (one.ending and one.ending in _endings(found)):
                raise OptionError(
                    f"plugin {record.name!r} brings the export format {one.name} "
                    f"({one.metavar}), which exists"
                )
            found[one.name] = one
    return found


def _endings(formats: Mapping[str, ExportFormat]) -> dict[str, ExportFormat]:
    return {one.ending: one for one in formats.values() if one.ending}


def choose_format(name: str | None, out: Path) -> ExportFormat:
    """The format of this name, else by the ending of the path. OptionError if they do not fit."""
    formats = find_formats()
    by_ending = _endings(formats).get(out.suffix.lower())
    chosen = by_ending if name is None else formats[name]
    if chosen is None or chosen.ending != (by_ending.ending if by_ending else ""):
        choices = ", ".join(f"{one.metavar} ({one.name})" for one in formats.values())
        wrong = "no such ending" if name is None else f"the ending is not that of --format {name}"
        raise OptionError(f"{out}: {wrong}: give one of {choices}")
    return chosen


@contextmanager
def replaced_folder(path: Path, files: Iterable[str]) -> Iterator[Path]:
    """A new folder to write to, which takes the place of `path` when the body ends.

    files: what `path` may hold, as `check_folder` has seen. RunError if it cannot be written, or
    holds anything else by then. After an error nothing new is left.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir()
        yield temporary
        for name in files:
            (path / name).unlink(missing_ok=True)
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_folder(path: Path, overwrite: bool, files: tuple[str, ...]) -> None:
    """RunError unless a folder of these files can be written, and nothing else is lost by it."""
    if path.is_dir() and not path.is_symlink():
        held = {one.name for one in path.iterdir()}
        if held - {*files}:
            raise RunError(
                f"{path} is a folder with other files, as {min(held - {*files})}: give another name"
            )
        if held and not overwrite:
            raise RunError(f"{path} exists already: give another name, or --overwrite")
    elif os.path.lexists(path):
        raise RunError(f"{path} exists already, and is no folder: give another name")
    else:
        check_writable(path, overwrite)
