"""Options of the data sets. This module imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from vaezoo.io import full_path
from vaezoo.options import Options

Binarize = Literal["none", "threshold", "dynamic"]

SPLIT_SEED = 0
"""Chooses the validation examples of data sets with official splits: the same ones in every run."""


def _read_size(value: Any) -> Any:
    """Parse 64, "64", "96x64", (96, 64) or ("96", "64") as (height, width)."""
    items = value if isinstance(value, (tuple, list)) else (value,)
    texts = "x".join(map(str, items)).lower().replace("×", "x").split("x")
    if not all(text.strip().isdecimal() for text in texts) or len(texts) > 2:
        raise ValueError("give one number, or height x width as in 96x64")
    size = tuple(int(text) for text in texts)
    if not all(1 <= n <= 4096 for n in size):
        raise ValueError("a size must be between 1 and 4096 pixels")
    return size if len(size) == 2 else size * 2


ImageSize = Annotated[tuple[int, int], BeforeValidator(_read_size)]
"""Height and width in pixels; one number stands for both."""


class DataOptions(Options):
    """Options of every data set."""

    binarize: Binarize = Field(
        "none",
        description="make values 0 or 1: by threshold at one half, or dynamic: drawn anew each "
        "epoch with the value as probability, the same draw each time in evaluation",
    )
    flip: bool = Field(
        False,
        description="mirror each training image left to right or not, drawn anew each epoch",
    )
    validation: int = Field(
        0,
        ge=0,
        description="number of training examples to hold out to monitor training; "
        "0: the test split monitors it",
    )


class DiskOptions(DataOptions):
    """Options of every data set that is read from disk."""

    # Absolute: a run may be evaluated from another working directory.
    root: Annotated[Path, AfterValidator(full_path)] | None = Field(
        None, description="where the data lies"
    )


class DecodeOptions(Options):
    """Options for decoding image files to one shape."""

    fit: Literal["crop", "stretch", "pad"] = Field(
        "crop",
        description="how an image of another shape fits: crop: shorter side to size, then the "
        "centre; stretch: both sides to size; pad: longer side to size, background around",
    )
    center_crop: int | None = Field(
        None, ge=1, description="cut this many pixels square out of the centre before resizing"
    )
    background: Literal["black", "grey", "white"] = Field(
        "white", description="colour behind transparent pixels and around padded images"
    )
    max_megapixels: float = Field(
        100.0,
        gt=0,
        le=1000,
        description="larger images are skipped, as damaged or malicious",
    )


class FolderOptions(DiskOptions, DecodeOptions):
    """Options of `folder`."""

    image_size: ImageSize = Field((64, 64), description="height and width, as 64 or 96x64")
    channels: Literal["auto", "1", "3"] = Field(
        "auto", description="1: grey, 3: colour, auto: grey if a first look finds no colour"
    )
    split: Literal["random", "sorted"] = Field(
        "random",
        description="if there are no train and test folders: random by split_seed, or sorted: the "
        "first in the order of their paths are for training",
    )
    test_fraction: float = Field(
        0.25, gt=0, lt=1, description="fraction held out if there is no test folder"
    )
    split_seed: int = Field(0, ge=0, lt=2**32, description="seed of the random split")
    max_skipped: float = Field(
        0.1, ge=0, le=1, description="refuse the folder if a larger fraction cannot be read"
    )


class NpzOptions(DiskOptions):
    """Options of `npz`: root is the file."""

    layout: Literal["auto", "nchw", "nhwc"] = Field(
        "auto",
        description="axes of an array of images with channels: nchw: channels before height and "
        "width; nhwc: after; auto: the axis of at most 4 values is that of the channels",
    )
    standardize: Literal["auto", "off"] = Field(
        "auto",
        description="auto: the model gets real-valued data with a mean of 0 and a standard "
        "deviation of 1, and all results are in the data's units; off: as it is",
    )

    test_fraction: float = Field(
        0.25, gt=0, lt=1, description="fraction held out if the file has no test array"
    )
    split_seed: int = Field(0, ge=0, lt=2**32, description="seed of the random split")
