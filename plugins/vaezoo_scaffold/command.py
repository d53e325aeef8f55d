"""`vaezoo new`: writes a plugin package to start from."""

from __future__ import annotations

from pathlib import Path

import click

from vaezoo.cli.options import list_option
from vaezoo.plugins.specs import Kind

from .write import KINDS, write_package


@click.command()
@click.argument("name")
@list_option("--kind kinds", click.Choice(KINDS), "model", "What it brings.")
def command(name: str, kinds: tuple[Kind, ...]) -> None:
    """Write the plugin package NAME, as in my-vae, into a new folder of that name.

    The package can be installed, passes its tests and trains without a change.
    """
    package = write_package(name, kinds, Path())
    click.echo(f"{name}: a plugin with {package.brings()}. Next:")
    for line in (f"pip install -e {name}", *package.commands()):
        click.echo(f"  {line}")
