"""`vaezoo embed`: a map of a run's latents on a plane."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from vaezoo.cli import options
from vaezoo.cli.output import print_json


@click.command(short_help="Draw a map of a run's latents.")
@options.run_argument
@click.option(
    "-n", "examples", type=click.IntRange(min=3), default=2000, help="Number of test examples."
)
@click.option(
    "--method",
    type=click.Choice(["pca", "umap", "tsne"]),
    default="pca",
    help="umap and tsne need the extra `maps`.",
)
@click.option(
    "--by",
    metavar="NAME",
    help="What colours the points: class, or a factor of the data.  [default: class]",
)
@options.seed_option
@options.picture_options("map.png")
def command(
    run: Path,
    examples: int,
    method: Literal["pca", "umap", "tsne"],
    by: str | None,
    seed: int,
    out: Path,
    device: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Draw the latents of test examples on a plane, a point each.

    A latent is the mean of the example's posterior. By default the axes are the two principal
    components (PCA).
    """
    options.check_writable(out, overwrite, options.IMAGE)

    from vaezoo.cli.progress import Progress
    from vaezoo.evaluation.plots import save_scatter
    from vaezoo.runs.run import load_run

    opened = load_run(run, device)
    with Progress() as progress:
        progress.update(method, 0, examples)
        found = opened.embed(examples, method=method, by=by, seed=seed)
    save_scatter(out, found.points, found.values, found.names, title=found.title, axes=found.axes)
    if as_json:
        print_json({"picture": str(out), **found.to_dict()})
    else:
        click.echo(f"{out}: {len(found.points):,} examples on a plane, {found.description}")
