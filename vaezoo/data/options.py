"""Options of the data sets. This module imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from vaezoo.io import full_path
from vaezoo.options import Options

Binarize = Literal["none", "threshold", "dynamic"]
Augmentation = Literal["flip", "crop", "color"]

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
    augment: tuple[Augmentation, ...] = Field(
        (),
        description="change training examples, drawn anew each epoch, with commas: flip: mirror "
        "left to right or not; crop: shift by up to an eighth of each side; color: brightness, "
        "contrast and saturation by up to 20%",
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
        100.0, gt=0, le=1000, description="larger images are skipped, as damaged or malicious"
    )
