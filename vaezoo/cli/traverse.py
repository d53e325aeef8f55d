"""`vaezoo traverse`: what changes in the picture when one latent value moves."""

from __future__ import annotations

from pathlib import Path

import click

from vaezoo.cli.complete import runs
from vaezoo.cli.output import print_json
from vaezoo.cli.pictures import MOVING, check_picture
from vaezoo.cli.shared import device_option, json_option, out_option


@click.command(short_help="Draw what each latent value of a run changes.")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path), shell_complete=runs)
@click.option(
    "-n", "rows", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many."
)
@out_option("traversal.png", "The picture to write: a PNG, or a GIF or WebP that moves.")
@click.option(
    "--from",
    "start",
    metavar="IMAGE",
    help="Start from an image file, or from the test example of that number.  "
    "[default: the prior's mean]",
)
@click.option("--class", "label", metavar="CLASS", help="Number or name, for conditional models.")
@click.option("--steps", type=click.IntRange(2, 200), help="Of each row.  [default: 9, moving 24]")
@click.option(
    "--examples",
    type=click.IntRange(min=2),
    default=2000,
    show_default=True,
    help="Test examples that the order of the rows goes by.",
)
@device_option
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@json_option
def command(
    run: Path,
    rows: int,
    out: Path,
    start: str | None,
    label: str | None,
    steps: int | None,
    examples: int,
    device: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Move each latent value alone through the prior's quantiles: a row a value.

    The most informative first: by the KL of each in nats, or where the model's KL is no sum over
    them, by the spread of the posteriors. Values that the decoder does not look at are left out.
    """
    check_picture(out, overwrite, MOVING)

    from vaezoo.evaluation.strips import save_rows
    from vaezoo.runs.run import load_run

    opened = load_run(run, device)
    opened.check_has_pictures()
    moving = out.suffix.lower() != ".png"
    found = opened.traverse(
        rows, steps=steps or (24 if moving else 9), start=start, label=label, examples=examples
    )
    unit = "nats" if found.order == "kl" else "std"
    names = [
        f"z{row.number}  {row.std if row.kl is None else row.kl:.2f} {unit}" for row in found.rows
    ]
    save_rows(out, [row.images for row in found.rows], names)
    if as_json:
        print_json({"picture": str(out), **found.to_dict()})
        return
    click.echo(f"{out}: {len(found.rows)} latent values, by {_ORDERS[found.order]}")
    if found.num_ignored:
        click.echo(f"{found.num_ignored} left out: the decoder does not look at them")


_ORDERS = {"kl": "their KL to the prior", "spread": "the spread of their posteriors"}
