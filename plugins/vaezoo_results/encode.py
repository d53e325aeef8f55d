"""`vaezoo encode`: writes the latents of examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vaezoo.cli.options import (
    device_option,
    json_option,
    list_option,
    out_option,
    run_argument,
    seed_option,
)
from vaezoo.cli.output import print_result
from vaezoo.errors import OptionError, counted
from vaezoo.runtime import is_rank0

from .sources import TABLES, check_file, open_source, source_options

_SHARD_SIZE = 10_000


@click.command()
@run_argument
@source_options
@out_option(
    None,
    "The file to write: .npz, .npy (one array), .safetensors, .csv or .parquet; without an ending, "
    "a folder of .safetensors files, with an index.",
)
@click.option(
    "--shard-size",
    type=click.IntRange(1),
    help=f"Examples in each file of a folder.  [default: {_SHARD_SIZE:,}]",
)
@list_option(
    "--what",
    click.Choice(["mean", "std", "sample", "indices"]),
    "mean",
    "mean and std of the posterior, a draw of it, or the indices of codes.",
)
@seed_option
@device_option
@json_option
def command(
    run: Path,
    images: tuple[str, ...],
    split: str,
    data: str | None,
    settings: tuple[str, ...],
    root: Path | None,
    label: str | None,
    out: Path,
    overwrite: bool,
    shard_size: int | None,
    what: tuple[Any, ...],
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Write the latents of every example, in the order of the data.

    The examples are those of the test split; of another split or data set; or the image files
    IMAGES. The file has the latents, the name or the number of each example, its class and its
    factors. Memory does not grow with the number of examples. Under torchrun, the processes share
    the work. A folder also has index.json, with the mean and the standard deviation of each
    channel.
    """
    ending = out.suffix.lower()
    if ending:
        check_file(out, overwrite, TABLES)
    if ending == ".npy" and len(what) > 1:
        raise OptionError("a .npy file has one array: give one value to --what, or use .npz")
    if ending and shard_size is not None:
        raise OptionError(f"--shard-size is for a folder: give a name without {ending}")

    from vaezoo import load_run
    from vaezoo.distributed.launch import process_group
    from vaezoo.runtime import listen_to_progress
    from vaezoo.training.progress import Progress

    from .shards import check_shards, write_shards
    from .tables import write_table

    if not ending:
        check_shards(out, overwrite or not is_rank0())
    with process_group(device), Progress() as progress, listen_to_progress(progress.update):
        opened = load_run(run, device, root=None if data else root)
        source = open_source(opened, images, split, data, settings, root, label)
        batches = source.examples.encode(what, seed=seed)
        shapes: dict[str, list[int]] = {}
        count = len(source.examples)
        if is_rank0():
            found = (source.columns(batch) for batch in batches)
            if ending == ".npy":
                found = ({name: piece[name] for name in what} for piece in found)
            if ending:
                shapes = write_table(out, found, count)
            else:
                shapes = write_shards(
                    out,
                    found,
                    count,
                    size=shard_size or _SHARD_SIZE,
                    latents=tuple(kind for kind in what if kind in ("mean", "sample")),
                    about={
                        "class_names": list(source.class_names),
                        "factor_names": list(source.factor_names),
                        "seed": seed,
                    },
                )
        else:
            for _ in batches:
                pass
    if not is_rank0():
        return
    left_out = []
    if ending == ".npy":
        left_out = ["example", "label", "factors"]
    elif ending in ("", ".safetensors") and source.width:
        left_out = ["example"]
    values = {
        "file": str(out),
        "run": str(run),
        "examples": count,
        "columns": shapes,
        "left_out": left_out,
        "class_names": list(source.class_names),
        "factor_names": list(source.factor_names),
        "seed": seed,
    }
    sizes = [f"{n} {'×'.join(map(str, s[1:])) or 'one number'}" for n, s in shapes.items()]
    text = f"{out}: {counted(count, 'example')}: {', '.join(sizes)}"
    kind = ending or ".safetensors"
    text += f"\nleft out, as {kind} has no place for them: {', '.join(left_out)}" * bool(left_out)
    print_result(as_json, values, text)
