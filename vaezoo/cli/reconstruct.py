"""`vaezoo reconstruct`: images through a run's encoder and decoder."""

from __future__ import annotations

from pathlib import Path

import click

from vaezoo.cli.complete import runs
from vaezoo.cli.output import print_json
from vaezoo.cli.pictures import check_picture
from vaezoo.cli.shared import device_option, json_option, out_option


@click.command(short_help="Put images through a run and back.")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path), shell_complete=runs)
@click.argument(
    "images", metavar="IMAGES...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@out_option("reconstructed.png", "The picture to write, a PNG.")
@device_option
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@json_option
def command(
    run: Path, images: tuple[Path, ...], out: Path, device: str, overwrite: bool, as_json: bool
) -> None:
    """Reconstruct image files with the model in the folder RUN, originals above."""
    check_picture(out, overwrite)

    from vaezoo.errors import DataError
    from vaezoo.evaluation.pictures import save_pairs
    from vaezoo.runs.run import load_run

    opened = load_run(run, device)
    if opened.model.conditional:
        raise DataError("this model is conditional: image files do not tell their class")
    x = opened.read_images(list(images))
    reconstructed = opened.reconstruct(x)
    save_pairs(out, x, reconstructed)
    if as_json:
        errors = (x - reconstructed).square().flatten(1).mean(1).tolist()
        print_json({"picture": str(out), "images": [*map(str, images)], "mse": errors})
    else:
        click.echo(f"{out}: {len(images)} originals above their reconstructions")
