"""`vaezoo new NAME`: writes a plugin package to start from. Imports no torch."""

from __future__ import annotations

from pathlib import Path

import click

from vaezoo.plugins.specs import Kind


@click.command("new", short_help="Write a plugin package to start from.")
@click.argument("name")
@click.option("--loss", is_flag=True, help="A loss instead of a model.")
@click.option("--dataset", is_flag=True, help="A data set instead of a model.")
@click.option("--all", "everything", is_flag=True, help="A model, a loss and a data set.")
def command(name: str, loss: bool, dataset: bool, everything: bool) -> None:
    """Write the plugin package NAME, as in my-vae, into a new folder of that name.

    The package can be installed, passes its tests and trains without a change.
    """
    from vaezoo.scaffold.write import write_package

    kinds: list[Kind] = []
    if everything or not (loss or dataset):
        kinds.append("model")
    if everything or loss:
        kinds.append("loss")
    if everything or dataset:
        kinds.append("dataset")
    package = write_package(name, kinds, Path())
    click.echo(f"{name}: a plugin with {package.brings()}. Next:")
    for line in (f"pip install -e {name}", *package.commands()):
        click.echo(f"  {line}")
