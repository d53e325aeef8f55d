"""`vaezoo embed`: a map of the latents."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from vaezoo.cli.complete import runs
from vaezoo.cli.output import print_json
from vaezoo.cli.pictures import check_picture
from vaezoo.cli.shared import device_option, json_option, out_option


@click.command(short_help="Draw a map of a run's latents.")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path), shell_complete=runs)
@click.option(
    "-n",
    "examples",
    type=click.IntRange(min=3),
    default=2000,
    show_default=True,
    help="Examples of the test split, spread over it.",
)
@out_option("map.png", "The picture to write, a PNG.")
@click.option(
    "--method",
    type=click.Choice(["pca", "umap", "tsne"]),
    default="pca",
    show_default=True,
    help="umap and tsne need the extra `maps`.",
)
@click.option(
    "--by",
    metavar="NAME",
    help="What colours the points: class, or a factor of the data.  [default: class]",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of a map.")
@device_option
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@json_option
def command(
    run: Path,
    examples: int,
    out: Path,
    method: Literal["pca", "umap", "tsne"],
    by: str | None,
    seed: int,
    device: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Draw where the test examples lie in the latent space of RUN, on a plane.

    By default the two directions of most variance (PCA). An example is where its posterior's mean
    is.
    """
    check_picture(out, overwrite)

    from vaezoo.cli.work import Work
    from vaezoo.evaluation.scatter import save_scatter
    from vaezoo.runs.run import load_run

    opened = load_run(run, device)
    with Work() as work:
        work.tell(method, 0, examples)
        found = opened.embed(examples, method=method, by=by, seed=seed)
    save_scatter(out, found.points, found.values, found.names, title=found.title, axes=found.axes)
    if as_json:
        print_json({"picture": str(out), **found.to_dict()})
    else:
        click.echo(f"{out}: {len(found.points):,} examples on a plane, {found.told}")
