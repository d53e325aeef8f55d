"""`vaezoo embed`: draws a map of a run's latents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from vaezoo.cli.options import choice_option, picture_options, run_argument, seed_option
from vaezoo.errors import counted

if TYPE_CHECKING:
    from vaezoo.runs.run import Run


@click.command()
@run_argument
@click.option("-n", "examples", type=click.IntRange(3), default=2000, help="Test examples to show.")
@choice_option("--method", ["pca", "umap", "tsne"], "umap and tsne need the extra `maps`.")
@click.option(
    "--by",
    metavar="NAME",
    help="What colours the points: class, or a factor of the data.  [default: class]",
)
@seed_option
@picture_options("map.png")
def command(
    run: Run,
    examples: int,
    method: Literal["pca", "umap", "tsne"],
    by: str | None,
    seed: int,
    out: Path,
) -> tuple[dict[str, Any], str]:
    """Draw the latents of test examples on a plane, a point each.

    A latent is the mean of the example's posterior. By default the axes are the two principal
    components (PCA).
    """
    from vaezoo.training.progress import Progress

    from .embedding import embed
    from .plot import save_scatter

    with Progress() as progress:
        progress.update(method, 0, examples)
        found = embed(run, examples, method=method, by=by, seed=seed)
    save_scatter(out, found.points, found.values, found.names, title=found.title, axes=found.axes)
    return (
        found.to_dict(),
        f"{counted(len(found.points), 'example')} on a plane, {found.description}",
    )
