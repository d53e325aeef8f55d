"""`vaezoo tile`: encodes, decodes or reconstructs an image of any size, in tiles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vaezoo.cli.options import (
    check_writable,
    device_option,
    json_option,
    out_option,
    run_argument,
)
from vaezoo.cli.output import print_result
from vaezoo.errors import DataError, OptionError, RunError

if TYPE_CHECKING:
    from torch import Tensor

    from vaezoo import EncoderDecoderVAE
    from vaezoo.runs.run import Run

LATENTS = (".npz", ".npy", ".safetensors")


@click.command()
@run_argument
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@out_option(None, "The file to write: .png for a picture, .npz, .npy or .safetensors for latents.")
@click.option(
    "--tile",
    type=click.IntRange(min=1),
    metavar="N",
    help="Rows and columns of the latent in a tile.  [default: those of the training images]",
)
@click.option(
    "--overlap",
    type=click.IntRange(min=0),
    metavar="N",
    help="Rows or columns that neighbouring tiles have in common.  [default: half of a tile]",
)
@device_option
@json_option
def command(
    run: Path,
    file: Path,
    out: Path,
    overwrite: bool,
    tile: int | None,
    overlap: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Encode, decode or reconstruct an image of any size, without all of it in memory at once.

    FILE is an image, or a file of latents that this command wrote. An image becomes latents or its
    reconstruction, by the ending of -o; latents become a picture. The model needs a grid of
    latents, as autoencoder_kl, vqgan and dc_ae have. Latents are the mean of the posterior. The
    borders of an image are repeated until its sides are multiples of the model's factor.
    """
    check_writable(out, overwrite, (".png", *LATENTS))
    given = file.suffix.lower() in LATENTS
    if given and out.suffix.lower() in LATENTS:
        raise OptionError(f"{file} has latents already: give -o a name that ends in .png")

    import torch
    from PIL import Image

    from vaezoo import EncoderDecoderVAE, load_run
    from vaezoo.evaluation.pictures import to_rgb
    from vaezoo.io import atomic_write
    from vaezoo.models.distributions import mode
    from vaezoo_results.tables import write_table

    from .tiled import decode_tiled, encode_tiled, image_factor

    opened = load_run(run, device)
    model = opened.model
    factor = image_factor(model)  # refuses a model without a grid
    assert isinstance(model, EncoderDecoderVAE)
    square = None if tile is None else (tile, tile)
    with torch.no_grad():
        if given:
            z = _read_latents(model, file).to(opened.device)
            height, width = (side * factor for side in z.shape[2:])
        else:
            x = _read_image(opened, file)
            height, width = x.shape[2:]
            padding = (0, -width % factor, 0, -height % factor)
            x = torch.nn.functional.pad(x, padding, mode="replicate")
            z = mode(encode_tiled(model, x.to(opened.device), tile=square, overlap=overlap)).float()
        if out.suffix.lower() == ".png":
            image = decode_tiled(model, z, tile=square, overlap=overlap).mean[:, :, :height, :width]
            picture = Image.fromarray(to_rgb(image.float().clamp(0, 1).cpu(), scale=1)[0].numpy())
            atomic_write(out, lambda temporary: picture.save(temporary, format="PNG"))
    if out.suffix.lower() in LATENTS:
        write_table(out, iter([{"mean": z.cpu().numpy()}]), 1)
    values = {
        "file": str(out),
        "run": str(run),
        "height": height,
        "width": width,
        "latent_shape": list(z.shape[1:]),
    }
    text = f"{out}: {height}×{width} pixels, a latent of {'×'.join(map(str, z.shape[1:]))}"
    print_result(as_json, values, text)


def _read_image(run: Run, path: Path) -> Tensor:
    """An image file at its own size, [1, channels, height, width] in [0, 1]."""
    import torch

    from vaezoo.data.decode import decode_image, image_size
    from vaezoo.data.options import DecodeOptions

    data = run.data_spec
    if not data.is_bounded or data.domain == "binary":
        raise DataError("tiles of image files are for models of 8-bit images")
    options = DecodeOptions()
    shape = (data.channels, *image_size(path, options))
    return torch.from_numpy(decode_image(path, shape, options))[None].float() / 255


def _read_latents(model: EncoderDecoderVAE, path: Path) -> Tensor:
    """The latents of a file, [1, channels, rows, columns]. RunError if they do not fit."""
    import torch

    from vaezoo_results.tables import open_table, read_pieces

    table = open_table(path)
    if "mean" not in table.names or table.count != 1:
        raise RunError(f"{path}: give the latents of one image, in a column mean")
    (piece,) = read_pieces(table, ["mean"])
    z, channels = piece["mean"], model.latent_shape[0]
    if z.ndim != 4 or z.shape[1] != channels:
        raise RunError(f"{path}: latents of this model are {channels} × rows × columns")
    return torch.tensor(z).float()
