"""Options of torchvision's data sets. This module imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vaezoo.data.options import DecodeOptions, DiskOptions, ImageSize


class TorchvisionOptions(DiskOptions):
    """Options of the data sets of torchvision."""

    image_size: ImageSize | None = Field(
        None, description="height and width, as 64 or 96x64; none: as the data comes"
    )
    download: bool = Field(False, description="download the data into root if it is not there")


class EmnistOptions(TorchvisionOptions):
    """Options of `emnist`."""

    part: Literal["balanced", "byclass", "bymerge", "digits", "letters", "mnist"] = Field(
        "balanced", description="which of EMNIST's six sets"
    )


class CelebaOptions(TorchvisionOptions, DecodeOptions):
    """Options of `celeba`."""

    image_size: ImageSize = Field((64, 64), description="height and width, as 64 or 96x64")
    center_crop: int | None = Field(
        148, ge=1, description="cut this many pixels square out of the centre before resizing"
    )
