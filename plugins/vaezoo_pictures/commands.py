"""Commands that draw a picture from a run: sample, reconstruct, traverse and interpolate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from vaezoo.cli.options import (
    ANIMATION,
    choice_option,
    class_option,
    picture_options,
    run_argument,
    sampler_option,
    sampler_settings,
    seed_option,
    set_option,
)
from vaezoo.errors import DataError, OptionError, counted

if TYPE_CHECKING:
    from torch import Tensor

    from vaezoo.runs.run import Run

Result = tuple[dict[str, Any], str]
"""What a command returns: the content of its JSON, and a text."""


def _save(
    run: Run, out: Path, y: Tensor | None = None, **stacks: Tensor
) -> tuple[tuple[float, float] | None, str]:
    """Write examples as a picture, or their values; a .csv file has `x`, a row for each example.

    stacks: as for save_examples, by the names that they have in an .npz file. y: their classes.
    Returns the values that are black and white in the picture, and what it shows.
    """
    import numpy as np

    from vaezoo.evaluation.pictures import drawn_range, save_examples
    from vaezoo.io import atomic_write

    if out.suffix.lower() == ".png":
        legend = save_examples(out, run.data_spec, *stacks.values())
        return drawn_range(run.data_spec), legend
    arrays: dict[str, Any] = {name: stack.numpy() for name, stack in stacks.items()}
    arrays |= {} if y is None else {"y": y.numpy()}

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            if out.suffix.lower() == ".npz":
                np.savez(file, **arrays)
            else:
                header = ",".join(f"x{i}" for i in range(arrays["x"].shape[1]))
                np.savetxt(file, arrays["x"], "%.9g", ",", header=header, comments="")

    atomic_write(out, write)
    return None, ""


def _describe(text: str, legend: str, x: Tensor) -> str:
    """The text, with that of the picture, and how many examples of x are not finite."""
    broken = int((~x.isfinite()).flatten(1).any(1).sum())
    warning = f"{counted(broken, 'example')} with values that are not finite" if broken else ""
    return "; ".join(filter(None, (text, legend, warning)))


@click.command()
@run_argument
@click.option("-n", "count", type=click.IntRange(1, 10_000), default=64, help="Number of samples.")
@class_option
@click.option(
    "--temperature", type=click.FloatRange(0, 10), default=1.0, help="Factor on the prior's std."
)
@sampler_option
@set_option("An option of sampling, as sampler.guidance=2. Repeatable.")
@seed_option
@picture_options("samples.png", or_values=True, reads_data=False)
def sample_command(
    run: Run,
    count: int,
    label: str | None,
    temperature: float,
    sampler: str | None,
    settings: tuple[str, ...],
    seed: int,
    out: Path,
) -> Result:
    """Draw examples from the prior of the model in the folder RUN: one picture, or values."""
    from vaezoo.runs.run import sample_labels

    changed = sampler_settings(settings)
    if sampler is not None:
        run = run.with_sampler(sampler, changed)
    elif changed:
        raise OptionError("--set sampler...: name the sampler too, by --sampler")
    number = None if label is None else run.class_index(label)
    x = run.sample(count, label=number, temperature=temperature, seed=seed)
    shown, legend = _save(run, out, sample_labels(run.model, count, number), x=x)
    values: dict[str, Any] = {"samples": count, "sampler": run.sampler_name}
    values |= {"temperature": temperature, "value_range": shown}
    return values, _describe(counted(count, "sample"), legend, x)


@click.command()
@run_argument
@click.argument("images", metavar="IMAGES...", nargs=-1, required=True)
@class_option
@picture_options("reconstructed.png", or_values=True)
def reconstruct_command(run: Run, images: tuple[str, ...], label: str | None, out: Path) -> Result:
    """Reconstruct image files, or test examples by number, with the model in the folder RUN.

    The picture shows the originals above their reconstructions, or both as curves. Values are those
    of the reconstructions; an .npz file has the originals too. A conditional model needs --class
    for image files; test examples have a class of their own.
    """
    import torch

    examples = [run.example(image) for image in images]
    x = torch.cat([example.x for example in examples]).cpu()
    reconstructed = run.reconstruct(x, run.classes_of(examples, label))
    shown, legend = _save(run, out, originals=x, x=reconstructed)
    errors = (x - reconstructed).square().flatten(1).mean(1).tolist()
    text = counted(len(images), "reconstructed example")
    values = {"images": [*images], "mse": errors, "value_range": shown}
    return values, _describe(text, legend, reconstructed)


@click.command()
@run_argument
@click.option("-n", "rows", type=click.IntRange(1, 1000), default=10, help="Dimensions to show.")
@click.option(
    "--from",
    "start",
    metavar="IMAGE",
    help="Image file, or number of a test example, to start from.  [default: the prior's mean]",
)
@class_option
@click.option(
    "--steps", type=click.IntRange(2, 200), help="Images of a row.  [default: 9; animation: 24]"
)
@click.option(
    "--examples",
    type=click.IntRange(2),
    default=2000,
    help="Number of test examples from which the order of the rows is computed.",
)
@picture_options("traversal.png", ANIMATION)
def traverse_command(
    run: Run,
    rows: int,
    start: str | None,
    label: str | None,
    steps: int | None,
    examples: int,
    out: Path,
) -> Result:
    """Move each latent dimension alone through the quantiles of the prior, a row each.

    The most informative dimension comes first: by its KL in nats, or by the standard deviation of
    its posterior means where the model's KL is not a sum over dimensions. Dimensions that do not
    change the decoder's output are left out.
    """
    import torch

    from vaezoo.evaluation.pictures import check_drawable, drawn_range, save_sequences

    check_drawable(run.data_spec)
    count = steps or (9 if out.suffix.lower() == ".png" else 24)
    found = run.traverse(rows, steps=count, start=start, label=label, examples=examples)
    if not found.rows:
        raise DataError("no latent dimension changes the decoder's output: there is no traversal")
    sizes = [f"{r.std:.2f} std" if r.kl is None else f"{r.kl:.2f} nats" for r in found.rows]
    names = [f"z{row.number}  {size}" for row, size in zip(found.rows, sizes, strict=True)]
    legend = save_sequences(out, run.data_spec, [row.images for row in found.rows], names)
    images = torch.cat([row.images for row in found.rows])
    order = "their KL" if found.order == "kl" else "the standard deviation of their posterior means"
    text = f"{counted(len(found.rows), 'latent dimension')}, ordered by {order}"
    if found.num_ignored:
        text += f"\n{found.num_ignored} left out: they do not change the decoder's output"
    values = {**found.to_dict(), "value_range": drawn_range(run.data_spec)}
    return values, _describe(text, legend, images)


@click.command()
@run_argument
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--steps", type=click.IntRange(2, 1000), help="Images.  [default: 10; animation: 24]")
@choice_option(
    "--method",
    ["slerp", "linear"],
    "slerp: along the arc around the origin; linear: along the straight line.",
)
@class_option
@picture_options("interpolation.png", ANIMATION)
def interpolate_command(
    run: Run,
    a: str,
    b: str,
    steps: int | None,
    method: Literal["slerp", "linear"],
    label: str | None,
    out: Path,
) -> Result:
    """Draw the interpolation from A to B: two image files, or numbers of test examples.

    The picture shows A, its reconstruction, the decoded latents between them, the reconstruction
    of B, and B.
    """
    import torch

    from vaezoo.evaluation.pictures import check_drawable, drawn_range, save_sequences

    check_drawable(run.data_spec)
    count = steps or (10 if out.suffix.lower() == ".png" else 24)
    found = run.interpolate(a, b, steps=count, method=method, label=label)
    path = [torch.cat([found.a, found.images, found.b])]
    legend = save_sequences(out, run.data_spec, path, [""])
    text = f"from {a} to {b} in {len(found.images)} steps"
    values = {"method": method, **found.to_dict(), "value_range": drawn_range(run.data_spec)}
    return values, _describe(text, legend, found.images)
