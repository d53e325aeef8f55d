"""`vaezoo sample`: new images from a run's prior."""

from __future__ import annotations

from pathlib import Path

import click

from vaezoo.cli.complete import runs
from vaezoo.cli.output import print_json
from vaezoo.cli.pictures import check_picture
from vaezoo.cli.shared import device_option, json_option, out_option


@click.command(short_help="Draw new images from a run's prior.")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path), shell_complete=runs)
@click.option(
    "-n", "count", type=click.IntRange(1, 10_000), default=64, show_default=True, help="How many."
)
@out_option("samples.png", "The picture to write, a PNG.")
@click.option(
    "--class", "label", metavar="CLASS", help="Number or name of a class, for conditional models."
)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0, max=10),
    default=1.0,
    show_default=True,
    help="Scales the prior's spread.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of noise.")
@device_option
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@json_option
def command(
    run: Path,
    count: int,
    out: Path,
    label: str | None,
    temperature: float,
    seed: int,
    device: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Draw images from the prior of the model in the folder RUN, as one picture."""
    check_picture(out, overwrite)

    from vaezoo.evaluation.pictures import save_grid
    from vaezoo.runs.run import load_run

    opened = load_run(run, device)
    number = None if label is None else opened.class_index(label)
    images = opened.sample(count, label=number, temperature=temperature, seed=seed)
    save_grid(out, images)
    if as_json:
        print_json({"picture": str(out), "samples": count, "temperature": temperature})
    else:
        click.echo(f"{out}: {count} samples")
