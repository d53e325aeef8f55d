"""The options that the commands share: where examples are written, and in which form."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from vaezoo.cli.options import (
    check_writable,
    device_option,
    json_option,
    out_option,
    root_option,
)
from vaezoo.cli.output import print_result
from vaezoo.errors import RunError

MOVING = (".gif", ".webp")
VALUES = (".npz", ".npy", ".csv")
NUMBERED = re.compile(r"\d{4,}\.png")
"""The names of the files in a folder of images."""

Command = Callable[..., tuple[dict[str, Any], str]]


def example_options(
    default: str, *, moving: bool = False, reads_data: bool = True
) -> Callable[[Command], Any]:
    """The options of a command that writes examples from a run, by the ending of -o.

    The command takes the open run, its own options and `out`. It returns what its JSON says
    besides the file, and the text to print if no JSON is asked for. moving: it can write an
    animation. reads_data: it has --root, because it reads the data of the run.
    """
    animation = ", a GIF or WebP with an animation" if moving else ""
    out_options = out_option(
        default,
        f"What to write: a PNG{animation}; values as .npz, the default for vectors, .npy or .csv; "
        "without an ending, a folder of numbered image files.",
    )

    def decorate(function: Command) -> Any:
        @functools.wraps(function)
        def write(
            run: Path,
            out: Path,
            overwrite: bool,
            device: str,
            as_json: bool,
            root: Path | None = None,
            **own: Any,
        ) -> None:
            from vaezoo import load_run

            opened = load_run(run, device, root=root)
            data = opened.data_spec
            source = click.get_current_context().get_parameter_source("out")
            if source is ParameterSource.DEFAULT and not data.ndim:
                out = out.with_suffix(".npz")
            if out.suffix or not data.is_image:
                pictures = (".png", *(MOVING if moving else ())) if data.ndim else ()
                why = "" if data.ndim else f"there are no pictures of {data.describe()}: "
                check_writable(out, overwrite, (*pictures, *VALUES), why=why)
            else:
                _check_folder(out, overwrite)
            values, text = function(opened, out=out, **own)
            ending = out.suffix.lower()
            files = {
                "picture": str(out) if ending in (".png", *MOVING) else None,
                "values": str(out) if ending in VALUES else None,
                "folder": None if ending else str(out),
            }
            print_result(as_json, {**files, **values}, f"{out}: {text}")

        options = device_option(json_option(write))
        return out_options(root_option(options) if reads_data else options)

    return decorate


def _check_folder(folder: Path, overwrite: bool) -> None:
    """RunError unless numbered images can be written there, and no other file is lost by it."""
    if not folder.is_dir():
        check_writable(folder, overwrite)
        return
    there = sorted(path.name for path in folder.iterdir())
    if others := [name for name in there if not NUMBERED.fullmatch(name)]:
        raise RunError(f"{folder} has other files, such as {others[0]}: give another folder")
    if there and not overwrite:
        raise RunError(f"{folder} has files already: give another folder, or --overwrite")
