"""`vaezoo reconstruct`: image files through the encoder and decoder of a run's model."""

from __future__ import annotations

from pathlib import Path

import click

from vaezoo.cli import options
from vaezoo.cli.output import print_json


@click.command(short_help="Encode image files with a run's model and decode them again.")
@options.run_argument
@click.argument("images", metavar="IMAGES...", nargs=-1, required=True, type=options.FILE)
@options.picture_options("reconstructed.png")
def command(
    run: Path, images: tuple[Path, ...], out: Path, device: str, overwrite: bool, as_json: bool
) -> None:
    """Reconstruct image files with the model in the folder RUN.

    The picture shows the originals above their reconstructions.
    """
    options.check_writable(out, overwrite, options.IMAGE)

    from vaezoo.errors import DataError
    from vaezoo.evaluation.pictures import save_pairs
    from vaezoo.runs.run import load_run

    opened = load_run(run, device)
    if opened.model.conditional:
        raise DataError("this model is conditional, and image files have no class")
    x = opened.read_images(list(images))
    reconstructed = opened.reconstruct(x)
    save_pairs(out, x, reconstructed)
    if as_json:
        errors = (x - reconstructed).square().flatten(1).mean(1).tolist()
        print_json({"picture": str(out), "images": [*map(str, images)], "mse": errors})
    else:
        click.echo(f"{out}: {len(images)} originals above their reconstructions")
