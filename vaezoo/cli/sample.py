"""`vaezoo sample`: new images from the prior of a run's model."""

from __future__ import annotations

from pathlib import Path

import click

from vaezoo.cli import options
from vaezoo.cli.output import print_json


@click.command(short_help="Draw new images from a run's prior.")
@options.run_argument
@click.option("-n", "count", type=click.IntRange(1, 10_000), default=64, help="Number of images.")
@options.class_option
@click.option(
    "--temperature",
    type=click.FloatRange(min=0, max=10),
    default=1.0,
    help="Factor on the standard deviation of the prior.",
)
@options.seed_option
@options.picture_options("samples.png")
def command(
    run: Path,
    count: int,
    label: str | None,
    temperature: float,
    seed: int,
    out: Path,
    device: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Draw images from the prior of the model in the folder RUN, as one picture."""
    options.check_writable(out, overwrite, options.IMAGE)

    from vaezoo.evaluation.pictures import save_grid
    from vaezoo.runs.run import load_run

    opened = load_run(run, device)
    number = None if label is None else opened.class_index(label)
    save_grid(out, opened.sample(count, label=number, temperature=temperature, seed=seed))
    if as_json:
        print_json({"picture": str(out), "samples": count, "temperature": temperature})
    else:
        click.echo(f"{out}: {count} samples")
