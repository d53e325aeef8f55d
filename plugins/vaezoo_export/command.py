"""`vaezoo export`: writes a trained model as files for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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

from .formats import check_folder, choose_format, find_formats

if TYPE_CHECKING:
    from .export import Exported


@click.command()
@run_argument
@click.option(
    "--format",
    "format_",
    type=click.Choice([*find_formats()]),
    help="onnx needs the extra `export`.  [default: by the ending of FILE]",
)
@out_option(
    None,
    f"{', '.join(dict.fromkeys(one.metavar for one in find_formats().values()))}. Two parts are "
    "written to FILE-encoder and FILE-decoder.",
)
@choice_option(
    "--part",
    ["both", "encoder", "decoder"],
    "The network to export, where each is a file.",
)
@json_option
def command(
    run: Path, format_: str | None, out: Path, part: str, overwrite: bool, as_json: bool
) -> None:
    """Export the model of RUN for other programs.

    onnx and torch-export, for batches of any size: the encoder maps x to z, the mean of the
    posterior, and to its scale if the posterior is Gaussian. The decoder maps z to x, the mean of
    the likelihood. Conditional models also take y, class numbers. safetensors holds the weights.
    Each file is read again and compared with PyTorch before it is kept.
    """
    chosen = choose_format(format_, out)
    if part != "both" and not chosen.by_part:
        raise OptionError(f"--part {part}: {chosen.name} holds both parts")

    from vaezoo import load_run

    from .export import PARTS

    parts = [one for one in PARTS if part in ("both", one)]
    paths = dict.fromkeys(parts, out)
    if chosen.by_part and part == "both":
        paths = {one: out.with_stem(f"{out.stem}-{one}") for one in parts}
    for path in dict.fromkeys(paths.values()):
        if chosen.ending:
            check_writable(path, overwrite)
        else:
            check_folder(path, overwrite, chosen.files)
    write = chosen.load()
    opened = load_run(run, "cpu")
    if chosen.by_part:
        files = [file for one, path in paths.items() for file in write(opened, path, one)]
    else:
        files = write(opened, out)
    values = {"format": chosen.name, "files": [one.to_dict() for one in files]}
    print_result(as_json, values, "\n".join(map(_describe, files)))


def _describe(exported: Exported) -> str:
    within = f"to {exported.difference:.0e}" if exported.difference else "exactly"
    if exported.part is None:
        content = f"{len(exported.outputs)} tensors"
    else:
        inputs = [f"{n} [{', '.join(map(str, shape))}]" for n, shape in exported.inputs.items()]
        content = f"{', '.join(inputs)} -> {', '.join(exported.outputs)}"
    line = f"{exported.path}: {content}, agrees with {exported.compared_with} {within}"
    return "\n".join([line, *exported.notes])
