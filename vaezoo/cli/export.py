"""`vaezoo export`: a trained model as a file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from vaezoo.cli.complete import runs
from vaezoo.cli.output import print_json
from vaezoo.cli.pictures import check_output
from vaezoo.cli.shared import json_option
from vaezoo.errors import OptionError

if TYPE_CHECKING:
    from vaezoo.export.files import Exported


@click.command(short_help="Write a run's model as ONNX, torch.export or safetensors.")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path), shell_complete=runs)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["onnx", "torch-export", "safetensors"]),
    default="onnx",
    show_default=True,
    help="onnx needs the extra `export`.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="FILE.onnx, FILE.pt2 or FILE.safetensors. Both parts go to FILE-encoder, FILE-decoder.",
)
@click.option(
    "--part",
    type=click.Choice(["both", "encoder", "decoder"]),
    default="both",
    show_default=True,
    help="Which direction; safetensors holds the weights of both.",
)
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@json_option
def command(
    run: Path,
    format_: Literal["onnx", "torch-export", "safetensors"],
    out: Path,
    part: Literal["both", "encoder", "decoder"],
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write the model of RUN for other programs, with batches of any size.

    The encoder takes x and gives z, where the posterior is, and its scale if it is a Gaussian; the
    decoder takes z and gives x, the likelihood's mean. Conditional models take y, class numbers,
    too. Every file is run and held against PyTorch before it is kept.
    """
    if format_ == "safetensors" and part != "both":
        raise OptionError(f"--part {part}: safetensors holds the weights of both parts")

    from vaezoo.export.files import ENDINGS, check_extra, export_part, export_weights
    from vaezoo.export.graphs import PARTS
    from vaezoo.runs.run import load_run

    if out.suffix != ENDINGS[format_]:
        raise OptionError(f"--out {out}: a file of --format {format_} ends in {ENDINGS[format_]}")
    parts = [one for one in PARTS if part in ("both", one)]
    single = format_ == "safetensors" or part != "both"
    paths = [out] if single else [out.with_stem(f"{out.stem}-{one}") for one in parts]
    for path in paths:
        check_output(path, overwrite)
    check_extra(format_)
    opened = load_run(run, "cpu")
    if format_ == "safetensors":
        found = [export_weights(opened, out)]
    else:
        found = [
            export_part(opened, one, format_, path) for one, path in zip(parts, paths, strict=True)
        ]
    if as_json:
        print_json({"format": format_, "files": [one.to_dict() for one in found]})
        return
    for one in found:
        click.echo(_told(one))


def _told(one: Exported) -> str:
    within = f"to {one.difference:.0e}" if one.difference else "exactly"
    agrees = f"agrees with PyTorch {within}"
    if one.part is None:
        return f"{one.path}: {len(one.outputs)} tensors, {agrees}"
    takes = ", ".join(
        f"{name} [{', '.join(map(str, shape))}]" for name, shape in one.inputs.items()
    )
    return f"{one.path}: {takes} -> {', '.join(one.outputs)}, {agrees}"
