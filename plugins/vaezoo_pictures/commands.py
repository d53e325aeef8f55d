"""Commands that draw a picture from a run: sample, reconstruct, traverse and interpolate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from vaezoo.cli.options import (
    choice_option,
    class_option,
    run_argument,
    sampler_option,
    sampler_settings,
    seed_option,
    set_option,
)
from vaezoo.errors import DataError, OptionError, counted

from .options import MOVING, example_options

if TYPE_CHECKING:
    from torch import Tensor

    from vaezoo.runs.run import Run

Result = tuple[dict[str, Any], str]
"""What a command returns: the content of its JSON, and a text."""


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
@example_options("samples.png", reads_data=False)
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
    from vaezoo.evaluation.pictures import save_examples
    from vaezoo.runs.evaluation import sample_labels

    from .outputs import Output

    changed = sampler_settings(settings)
    if sampler is not None:
        run = run.with_sampler(sampler, changed)
    elif changed:
        raise OptionError("--set sampler...: name the sampler too, by --sampler")
    number = None if label is None else run.class_index(label)
    x = run.sample(count, label=number, temperature=temperature, seed=seed)
    y, data = sample_labels(run.model, count, number), run.data_spec
    arrays = {"x": x} if y is None else {"x": x, "y": y}
    columns = {} if y is None else {"y": y.tolist()}
    output = Output(data, lambda path: save_examples(path, data, x), arrays, columns)
    shown, legend = output.write(out)
    values: dict[str, Any] = {"samples": count, "sampler": run.sampler_name}
    values |= {"temperature": temperature, "value_range": shown}
    return values, _describe(counted(count, "sample"), legend, x)


@click.command()
@run_argument
@click.argument("images", metavar="IMAGES...", nargs=-1, required=True)
@class_option
@example_options("reconstructed.png")
def reconstruct_command(run: Run, images: tuple[str, ...], label: str | None, out: Path) -> Result:
    """Reconstruct image files, or test examples by number, with the model in the folder RUN.

    The picture shows the originals above their reconstructions, or both as curves. Values are those
    of the reconstructions; an .npz file has the originals too. A conditional model needs --class
    for image files; test examples have a class of their own.
    """
    import torch

    from vaezoo.evaluation.pictures import save_examples

    from .outputs import Output

    examples = [run.example(image) for image in images]
    x = torch.cat([example.x for example in examples]).cpu()
    reconstructed = run.reconstruct(x, run.classes_of(examples, label))
    errors = (x - reconstructed).square().flatten(1).mean(1).tolist()
    shown, legend = Output(
        run.data_spec,
        lambda path: save_examples(path, run.data_spec, x, reconstructed),
        {"originals": x, "x": reconstructed},
        {"image": images, "mse": errors},
    ).write(out)
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
@example_options("traversal.png", moving=True)
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

    from vaezoo.evaluation.pictures import save_sequences

    from .outputs import Output

    count = steps or (24 if out.suffix.lower() in MOVING else 9)
    found = run.traverse(rows, steps=count, start=start, label=label, examples=examples)
    if not found.rows:
        raise DataError("no latent dimension changes the decoder's output: there is no traversal")
    sizes = [f"{r.std:.2f} std" if r.kl is None else f"{r.kl:.2f} nats" for r in found.rows]
    names = [f"z{row.number}  {size}" for row, size in zip(found.rows, sizes, strict=True)]
    images = torch.stack([row.images for row in found.rows])
    numbers, values = [row.number for row in found.rows], [row.values for row in found.rows]
    shown, legend = Output(
        run.data_spec,
        lambda path: save_sequences(path, run.data_spec, list(images), names),
        {"x": images, "latents": torch.tensor(numbers), "values": torch.tensor(values)},
        {
            "latent": [number for number in numbers for _ in range(count)],
            "value": [f"{value:.9g}" for row in values for value in row],
        },
    ).write(out)
    order = "their KL" if found.order == "kl" else "the standard deviation of their posterior means"
    text = f"{counted(len(found.rows), 'latent dimension')}, ordered by {order}"
    if found.num_ignored:
        text += f"\n{found.num_ignored} left out: they do not change the decoder's output"
    return {**found.to_dict(), "value_range": shown}, _describe(text, legend, images.flatten(0, 1))


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
@example_options("interpolation.png", moving=True)
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

    from vaezoo.evaluation.pictures import save_sequences

    from .outputs import Output

    count = steps or (24 if out.suffix.lower() in MOVING else 10)
    found = run.interpolate(a, b, steps=count, method=method, label=label)
    path = [torch.cat([found.a, found.images, found.b])]
    shown, legend = Output(
        run.data_spec,
        lambda file: save_sequences(file, run.data_spec, path, [""]),
        {"x": found.images, "latents": found.latents, "a": found.a, "b": found.b},
        {},
    ).write(out)
    text = f"from {a} to {b} in {len(found.images)} steps"
    values = {"method": method, **found.to_dict(), "value_range": shown}
    return values, _describe(text, legend, found.images)
