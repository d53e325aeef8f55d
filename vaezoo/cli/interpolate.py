"""`vaezoo interpolate`: images along a path in the latent space between two images."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from vaezoo.cli import options
from vaezoo.cli.output import print_json


@click.command(short_help="Draw the interpolation between two images.")
@options.run_argument
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--steps", type=click.IntRange(2, 1000), help="Images.  [default: 10; animation: 24]")
@click.option(
    "--method",
    type=click.Choice(["slerp", "linear"]),
    default="slerp",
    help="slerp: along the arc around the origin; linear: along the straight line.",
)
@options.class_option
@options.picture_options("interpolation.png", options.ANIMATION)
def command(
    run: Path,
    a: str,
    b: str,
    steps: int | None,
    method: Literal["slerp", "linear"],
    label: str | None,
    out: Path,
    device: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Draw the interpolation from A to B: two image files, or numbers of test examples.

    The picture shows A, its reconstruction, the decoded latents between them, the reconstruction
    of B, and B.
    """
    options.check_writable(out, overwrite, options.ANIMATION)

    import torch

    from vaezoo.evaluation.pictures import save_rows
    from vaezoo.runs.run import load_run

    opened = load_run(run, device)
    opened.check_has_pictures()
    count = steps or (10 if out.suffix.lower() == ".png" else 24)
    found = opened.interpolate(a, b, steps=count, method=method, label=label)
    save_rows(out, [torch.cat([found.a, found.images, found.b])], [""])
    if as_json:
        print_json({"picture": str(out), "method": method, **found.to_dict()})
    else:
        click.echo(f"{out}: from {a} to {b} in {len(found.images)} steps")
