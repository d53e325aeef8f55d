"""The options of the discrete models and of their loss. No torch here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from vaezoo import LikelihoodOptions, NetworkOptions, Options

MAX_CODES = 1 << 20

MAX_GRID = 8
"""By default an image is halved until its grid has at most so many rows and columns."""


class GridOptions(LikelihoodOptions):
    """Networks around a grid of codes, and the prior that is fitted after training."""

    test_defaults: ClassVar[Mapping[str, Any]] = {"hidden": (16, 16), "prior_steps": 5}

    network: Literal["conv", "resnet"] = Field(
        "resnet",
        description="encoder and decoder: conv: strided convolutions; resnet: with residual blocks",
    )
    hidden: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None,
        min_length=1,
        description="channels of each level, which halves the image; none: 32,64,128,... until "
        "the grid is at most 8×8",
    )
    prior_steps: int = Field(
        1000,
        ge=0,
        description="training steps of the prior, 64 images each, after training; 0: it stays "
        "uniform",
    )
    prior_width: int = Field(
        64, ge=1, le=1 << 12, description="embedding size of the prior's transformer"
    )
    prior_layers: int = Field(3, ge=1, le=100, description="layers of the prior's transformer")

    def channels(self, height: int, width: int) -> tuple[int, ...]:
        """Channels of each level for images of this size."""
        if self.hidden is not None:
            return self.hidden
        levels = max(1, math.ceil(math.log2(max(height, width) / MAX_GRID)))
        return tuple(32 * 2**level for level in range(levels))


class VQOptions(GridOptions):
    codes: int = Field(512, ge=2, le=MAX_CODES, description="number of codes in the codebook")
    code_dim: int = Field(64, ge=1, le=1 << 16, description="size of a code vector")
    codebook: Literal["ema", "gradient"] = Field(
        "ema",
        description="how the codebook learns: ema: moving averages of the assigned features; "
        "gradient: as a parameter",
    )
    decay: float = Field(0.99, ge=0, lt=1, description="decay of the moving averages, with ema")
    dead_code_steps: int | None = Field(
        100,
        ge=1,
        le=10**9,
        description="a code that was not used for so many steps is reset to a random encoder "
        "output; none: never",
    )


class FSQOptions(GridOptions):
    levels: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        (8, 5, 5, 5),
        min_length=1,
        description="number of values of each channel; their product is the number of codes, at "
        "most 1,048,576",
    )


class GumbelOptions(NetworkOptions):
    latent_dim: int = Field(20, ge=1, description="number of categorical variables")
    classes: int = Field(10, ge=2, le=MAX_CODES, description="classes of each variable")
    temperature: float = Field(
        1.0, gt=0, description="temperature of the relaxed samples at the first step"
    )
    min_temperature: float = Field(
        0.5, gt=0, description="lowest temperature, at most the first one"
    )
    anneal_steps: int = Field(
        2000,
        ge=1,
        description="training steps in which the temperature falls exponentially to the lowest",
    )


class VQLossOptions(Options):
    commitment: float = Field(
        0.25,
        ge=0,
        description="weight of the commitment term, |features - codes|²: beta in the paper",
    )
