"""Arguments and options that commands share, so that they read the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from vaezoo.cli.complete import runs

runs_argument = click.argument(
    "runs",
    metavar="RUN...",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
    shell_complete=runs,
)

device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ..."
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/json.md).")


def out_option(default: str, what: str) -> Callable[[Any], Any]:
    """Where a command writes its one file. what: which kind of file that is."""
    return click.option(
        "-o",
        "--out",
        type=click.Path(path_type=Path),
        default=Path(default),
        show_default=True,
        metavar="FILE",
        help=what,
    )
