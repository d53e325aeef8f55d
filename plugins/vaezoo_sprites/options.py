"""Options of sprites. This module imports no torch."""

from __future__ import annotations

from pydantic import Field

from vaezoo import DataOptions
from vaezoo.data.options import ImageSize


class SpritesOptions(DataOptions):
    """Options of `sprites`."""

    image_size: ImageSize = Field((64, 64), description="height and width, as 64 or 96x64")
    examples: int = Field(
        40_000,
        ge=2,
        le=737_280,
        description="how many images of the grid to use, drawn by split_seed; 737280 is all",
    )
    indices: str | None = Field(
        None, description="use a part of the grid instead, as start:stop or start:stop:step"
    )
    test: int = Field(2_000, ge=1, description="how many of them are held out")
    split_seed: int = Field(0, ge=0, lt=2**32, description="seed of the subset and of the split")
