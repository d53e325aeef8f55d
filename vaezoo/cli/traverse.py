"""`vaezoo traverse`: images in which one latent dimension changes at a time."""

from __future__ import annotations

from pathlib import Path

import click

from vaezoo.cli import options
from vaezoo.cli.output import print_json


@click.command(short_help="Draw what each latent dimension of a run changes.")
@options.run_argument
@click.option(
    "-n", "rows", type=click.IntRange(1, 1000), default=10, help="Number of dimensions, a row each."
)
@click.option(
    "--from",
    "start",
    metavar="IMAGE",
    help="Image file, or number of a test example, to start from.  [default: the prior's mean]",
)
@options.class_option
@click.option(
    "--steps", type=click.IntRange(2, 200), help="Images of a row.  [default: 9; animation: 24]"
)
@click.option(
    "--examples",
    type=click.IntRange(min=2),
    default=2000,
    help="Number of test examples from which the order of the rows is computed.",
)
@options.picture_options("traversal.png", options.ANIMATION)
def command(
    run: Path,
    rows: int,
    start: str | None,
    label: str | None,
    steps: int | None,
    examples: int,
    out: Path,
    device: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Move each latent dimension alone through the quantiles of the prior, a row each.

    The most informative dimension comes first: by its KL in nats, or by the standard deviation of
    its posterior means where the model's KL is not a sum over dimensions. Dimensions that do not
    change the decoder's output are left out.
    """
    options.check_writable(out, overwrite, options.ANIMATION)

    from vaezoo.evaluation.pictures import save_rows
    from vaezoo.runs.run import load_run

    opened = load_run(run, device)
    opened.check_has_pictures()
    count = steps or (9 if out.suffix.lower() == ".png" else 24)
    found = opened.traverse(rows, steps=count, start=start, label=label, examples=examples)
    names = [
        f"z{row.number}  {row.std:.2f} std"
        if row.kl is None
        else f"z{row.number}  {row.kl:.2f} nats"
        for row in found.rows
    ]
    save_rows(out, [row.images for row in found.rows], names)
    if as_json:
        print_json({"picture": str(out), **found.to_dict()})
        return
    order = "their KL" if found.order == "kl" else "the standard deviation of their posterior means"
    click.echo(f"{out}: {len(found.rows)} latent dimensions, ordered by {order}")
    if found.num_ignored:
        click.echo(f"{found.num_ignored} left out: they do not change the decoder's output")
