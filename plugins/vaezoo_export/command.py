"""`vaezoo export`: writes a trained model as files for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from vaezoo.cli.options import (
    check_writable,
    choice_option,
    json_option,
    out_option,
    run_argument,
)
from vaezoo.cli.output import print_result
from vaezoo.errors import OptionError

if TYPE_CHECKING:
    from .export import Exported


@click.command()
@run_argument
@click.option(
    "--format",
    "format_",
    type=click.Choice(["onnx", "torch-export", "safetensors"]),
    help="onnx needs the extra `export`.  [default: by the ending of FILE]",
)
@out_option(
    None,
    "FILE.onnx, FILE.pt2 or FILE.safetensors. Two parts are written to FILE-encoder and "
    "FILE-decoder.",
)
@choice_option(
    "--part",
    ["both", "encoder", "decoder"],
    "The network to export; safetensors holds the weights of both.",
)
@json_option
def command(
    run: Path,
    format_: Literal["onnx", "torch-export", "safetensors"] | None,
    out: Path,
    part: Literal["both", "encoder", "decoder"],
    overwrite: bool,
    as_json: bool,
) -> None:
    """Export the model of RUN for other programs, with batches of any size.

    The encoder maps x to z, the mean of the posterior, and to its scale if the posterior is
    Gaussian. The decoder maps z to x, the mean of the likelihood. Conditional models also take y,
    class numbers. Each file is run and compared with PyTorch before it is kept.
    """
    from vaezoo import load_run

    from .export import ENDINGS, PARTS, check_extra, export_part, export_weights

    found = next((name for name, ending in ENDINGS.items() if out.suffix.lower() == ending), None)
    format_ = format_ or found
    if format_ is None or format_ != found:
        formats = ", ".join(f"FILE{ending} ({name})" for name, ending in ENDINGS.items())
        wrong = f"the ending is not that of --format {format_}" if format_ else "no such ending"
        raise OptionError(f"{out}: {wrong}: give one of {formats}")
    if format_ == "safetensors" and part != "both":
        raise OptionError(f"--part {part}: safetensors holds the weights of both parts")
    parts = [one for one in PARTS if part in ("both", one)]
    single = format_ == "safetensors" or part != "both"
    paths = [out] if single else [out.with_stem(f"{out.stem}-{one}") for one in parts]
    for path in paths:
        check_writable(path, overwrite)
    check_extra(format_)
    opened = load_run(run, "cpu")
    if format_ == "safetensors":
        files = [export_weights(opened, out)]
    else:
        files = [
            export_part(opened, one, format_, path) for one, path in zip(parts, paths, strict=True)
        ]
    values = {"format": format_, "files": [one.to_dict() for one in files]}
    print_result(as_json, values, "\n".join(map(_describe, files)))


def _describe(exported: Exported) -> str:
    within = f"to {exported.difference:.0e}" if exported.difference else "exactly"
    if exported.part is None:
        content = f"{len(exported.outputs)} tensors"
    else:
        inputs = [f"{n} [{', '.join(map(str, shape))}]" for n, shape in exported.inputs.items()]
        content = f"{', '.join(inputs)} -> {', '.join(exported.outputs)}"
    return f"{exported.path}: {content}, agrees with PyTorch {within}"
