"""`vaezoo evaluate`: measure a finished run."""

from __future__ import annotations

from pathlib import Path

import click

from vaezoo.cli.complete import runs
from vaezoo.cli.output import print_json

_MEANING = {
    "elbo": "nats, a lower bound on the log-likelihood",
    "log_likelihood": "nats, importance-weighted",
    "rate": "nats, KL of posterior and prior",
    "distortion": "nats, -log p(x|z)",
    "bits_per_dim": "bits per dimension, from the ELBO",
    "mse": "of reconstructions, values in [0, 1]",
    "psnr": "dB",
    "ssim": "structural similarity, at most 1",
    "active_units": "latents that depend on the image",
    "reconstruction_r2": "share of the variance that reconstructions explain",
}


@click.command(short_help="Measure a finished run on held-out data.")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path), shell_complete=runs)
@click.option(
    "--importance-samples",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="K",
    help="Samples an image for the log-likelihood; 0: none. Thousands are customary.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of noise.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/json.md).")
def command(run: Path, importance_samples: int, seed: int, device: str, as_json: bool) -> None:
    """Measure the model in the folder RUN on the test split of its data."""
    from vaezoo.runs import load_run

    result = load_run(run, device).evaluate(importance_samples=importance_samples, seed=seed)
    values = result.to_dict()
    if as_json:
        print_json(values)
        return
    for name, meaning in _MEANING.items():
        value = values[name]
        shown = "-" if value is None else f"{value:.5g}"
        click.echo(f"{name:18}{shown:>12}  {values['notes'].get(name, meaning)}")
    click.echo(f"{values['examples']:,} examples")
