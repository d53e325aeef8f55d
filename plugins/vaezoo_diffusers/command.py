"""`vaezoo import`: makes a run of an autoencoder in the format of diffusers."""

from __future__ import annotations

from pathlib import Path

import click

from vaezoo.cli.options import json_option, set_option
from vaezoo.cli.output import print_result
from vaezoo.errors import counted

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("source", metavar="DIR", type=_PATH)
@click.option(
    "-o",
    "--out",
    metavar="RUN",
    type=_PATH,
    help="The run folder.  [default: runs/MODEL-DATA-001, ...]",
)
@click.option(
    "--data",
    metavar="NAME",
    help="The data set of the run.  [default: a folder of images; without --root any, which is "
    "named later]",
)
@set_option("An option of the data, as data.image_size=64. Repeatable.")
@click.option("--root", type=_PATH, metavar="DIR", help="Where the data lies.")
@json_option
def command(
    source: Path,
    out: Path | None,
    data: str | None,
    settings: tuple[str, ...],
    root: Path | None,
    as_json: bool,
) -> None:
    """Make a run of the autoencoder in DIR, a folder in the format of diffusers.

    DIR has config.json and weights in safetensors, or is a pipeline with such a folder `vae`. The
    run is used as one that was trained here. Nothing is downloaded, and no code of DIR is run.
    """
    from .importing import import_run

    run = import_run(source, out, data=data, settings=settings, root=root)
    imported, model = run.metadata["imported"], run.model
    parameters = sum(parameter.numel() for parameter in model.parameters())
    has_data = run.metadata["data"]["fingerprint"] is not None
    values = {
        "run": str(run.path),
        "model": run.config.components.model.name,
        "parameters": parameters,
        "shape": list(run.data_spec.shape),
        "latent_shape": list(model.latent_shape),
        "data": run.config.components.data.name if has_data else None,
        "imported": imported,
    }
    sizes = ["×".join(map(str, shape)) for shape in (run.data_spec.shape, model.latent_shape)]
    text = (
        f"{run.path}: {imported['class']} as {values['model']}, "
        f"{counted(parameters, 'parameter')}, {sizes[0]} to latents of {sizes[1]}"
    )
    if not has_data:
        text += "\nwithout data: evaluate, fit and encode take a folder of images by --root DIR"
    print_result(as_json, values, text)
