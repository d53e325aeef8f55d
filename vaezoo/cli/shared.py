"""Arguments and options that commands share, so that they read the same everywhere."""

from __future__ import annotations

from pathlib import Path

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
