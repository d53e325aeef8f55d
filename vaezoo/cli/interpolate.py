"""`vaezoo interpolate`: the way from one image to another."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from vaezoo.cli.complete import runs
from vaezoo.cli.output import print_json
from vaezoo.cli.pictures import MOVING, check_picture
from vaezoo.cli.shared import device_option, json_option, out_option


@click.command(short_help="Draw the way from one image to another.")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path), shell_complete=runs)
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@out_option("interpolation.png", "The picture to write: a PNG, or a GIF or WebP that moves.")
@click.option("--steps", type=click.IntRange(2, 1000), help="[default: 10, moving 24]")
@click.option(
    "--way",
    type=click.Choice(["slerp", "linear"]),
    default="slerp",
    show_default=True,
    help="Along the arc around the origin, or along the line.",
)
@click.option("--class", "label", metavar="CLASS", help="Number or name, for conditional models.")
@device_option
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@json_option
def command(
    run: Path,
    a: str,
    b: str,
    out: Path,
    steps: int | None,
    way: Literal["slerp", "linear"],
    label: str | None,
    device: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Draw the way from A to B, two image files or numbers of test examples.

    From A through its reconstruction and that of B to B; in between, what the decoder makes of the
    latents on the way.
    """
    check_picture(out, overwrite, MOVING)

    import torch

    from vaezoo.evaluation.strips import save_rows
    from vaezoo.runs.run import load_run

    opened = load_run(run, device)
    opened.check_has_pictures()
    moving = out.suffix.lower() != ".png"
    found = opened.interpolate(a, b, steps=steps or (24 if moving else 10), way=way, label=label)
    ends = (found.a, found.b)
    save_rows(out, [torch.cat([ends[0], found.images, ends[1]])], [""])
    if as_json:
        print_json({"picture": str(out), "way": way, **found.to_dict()})
    else:
        click.echo(f"{out}: from {a} to {b} in {len(found.images)} steps")
