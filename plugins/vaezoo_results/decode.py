"""`vaezoo decode`: decodes the latents in a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vaezoo.cli.options import (
    check_writable,
    class_option,
    device_option,
    json_option,
    out_option,
    run_argument,
)
from vaezoo.cli.output import print_result
from vaezoo.errors import RunError, counted

if TYPE_CHECKING:
    from vaezoo.runs.run import Run

    from .tables import Table

ENDINGS = (".npz", ".npy", ".csv", ".png")

_KINDS = ("mean", "sample", "indices")
_DRAWN = 64
"""The most examples of a picture."""


@click.command()
@run_argument
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@out_option(None, "The file to write: .npz, .npy or .csv for values, .png for a picture.")
@class_option
@device_option
@json_option
def command(
    run: Path, file: Path, out: Path, overwrite: bool, label: str | None, device: str, as_json: bool
) -> None:
    """Decode the latents in FILE, as `vaezoo encode` writes them.

    FILE is .npz, .npy, .safetensors, .csv or .parquet. Of its columns mean, sample and indices the
    first that it has is decoded. Conditional models use its column label, or --class. A picture
    shows the first 64 examples.
    """
    check_writable(out, overwrite, ENDINGS)

    import torch

    from vaezoo import load_run
    from vaezoo.evaluation.pictures import check_drawable, save_examples
    from vaezoo.training.progress import Progress

    from .tables import open_table, write_table

    opened, table = load_run(run, device), open_table(file)
    kind = next((kind for kind in _KINDS if kind in table.names), None)
    if kind is None:
        raise RunError(f"{file} has no column mean, sample or indices: nothing to decode")
    if not table.count:
        raise RunError(f"{file} has no rows")
    shown, legend = table.count, ""
    with Progress() as progress:
        found = _decode(opened, table, kind, label, progress)
        if out.suffix.lower() == ".png":
            check_drawable(opened.data_spec)
            x = torch.from_numpy(next(found)["x"][:_DRAWN])
            shown, legend = len(x), save_examples(out, opened.data_spec, x)
        else:
            if out.suffix.lower() == ".npy":
                found = ({"x": piece["x"]} for piece in found)
            write_table(out, found, table.count)
    values = {
        "file": str(out),
        "run": str(run),
        "latents": kind,
        "examples": shown,
        "rows": table.count,
        "shape": list(opened.data_spec.shape),
    }
    rest = f" of {table.count:,}" if shown < table.count else ""
    text = f"{out}: {counted(shown, 'example')}{rest}, decoded from {kind}"
    print_result(as_json, values, text + (f"; {legend}" if legend else ""))


def _decode(
    run: Run, table: Table, kind: str, label: str | None, progress: Any
) -> Iterator[dict[str, Any]]:
    """The examples of each piece of the table, with their classes if it has them."""
    import numpy as np

    from .tables import read_pieces

    names, done = [kind, *(["label"] if "label" in table.names else [])], 0
    given = None if label is None else run.class_index(label)
    if run.model.conditional and given is None and "label" not in names:
        raise RunError(f"this model is conditional, and {table.path} has no column label: --class")
    for piece in read_pieces(table, names):
        z, y = piece[kind], piece.get("label")
        if kind == "indices" and z.dtype.kind not in "iu":
            raise RunError(f"{table.path}: indices are whole numbers")
        if given is not None:
            y = np.full(len(z), given)
        if table.is_flat:
            shape = _shape(run, kind)
            if z.shape[1] == int(np.prod(shape)):
                z = z.reshape(len(z), *shape)
        x = run.decode(np.array(z), y if run.model.conditional else None)
        done += len(z)
        progress.update("decoding", done, table.count)
        yield {"x": x} | ({} if y is None else {"label": np.asarray(y)})


def _shape(run: Run, kind: str) -> tuple[int, ...]:
    """The shape of a latent, or of the indices of its codes."""
    shape, codes = tuple(run.model.latent_shape), run.model.codebook
    if kind != "indices" or codes is None:
        return shape
    return (*((codes.codebooks,) if codes.codebooks > 1 else ()), *shape[1:])
