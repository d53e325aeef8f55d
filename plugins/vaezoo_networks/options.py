"""The options of the networks. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from vaezoo import Options

Widths = tuple[Annotated[int, Field(ge=1)], ...]

MAX_GRID = 8
"""By default the levels of a grid end where its longest side is at most this."""


class ConvOptions(Options):
    """The channels of a convolutional network."""

    test_defaults: ClassVar[Mapping[str, Any]] = {"hidden": (16, 16)}

    hidden: Widths | None = Field(
        None,
        min_length=1,
        description="channels of each level, which halves the size; none: 32,64,128,256,512, or "
        "for a grid of latents 32,64,128,... until the grid has at most 8 positions along a side",
    )


class CheckpointingOptions(Options):
    """Of a network of blocks that can be computed again."""

    activation_checkpointing: bool = Field(
        False,
        description="in training, keep only the input of each block for the backward pass and "
        "compute the rest again: less memory, a third more time",
    )


class MLPOptions(Options):
    """The widths of dense layers."""

    test_defaults: ClassVar[Mapping[str, Any]] = {"hidden": (16, 16)}

    hidden: Widths = Field(
        (512, 256), min_length=1, description="widths of the layers, from the data to the latent"
    )
