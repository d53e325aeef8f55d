"""Options of the models and of their loss. No torch here: names and help are read without it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from vaezoo import LikelihoodOptions, NetworkOptions, Options

MOST_CODES = 1 << 20

LARGEST_GRID = 8
"""Rows and columns of codes that images are halved to, unless the user says how often."""


class GridOptions(LikelihoodOptions):
    """Networks around a grid of codes, and the prior that is fitted over it after training."""

    test_defaults: ClassVar[Mapping[str, Any]] = {"hidden": (16, 16), "prior_steps": 5}

    network: Literal["conv", "resnet"] = Field(
        "resnet",
        description="bodies of encoder and decoder: conv: strided convolutions; resnet: with "
        "residual blocks",
    )
    hidden: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None,
        min_length=1,
        description="channels of each level, which halves the image; none: 32,64,128,... to a "
        "grid of at most 8×8 codes",
    )
    prior_steps: int = Field(
        1000,
        ge=0,
        description="steps of 64 images that fit the prior over codes, after training; 0: it "
        "stays uniform",
    )
    prior_width: int = Field(
        64, ge=1, le=1 << 12, description="features of the prior's transformer"
    )
    prior_layers: int = Field(3, ge=1, le=100, description="layers of the prior's transformer")

    def channels(self, height: int, width: int) -> tuple[int, ...]:
        """Of each level, for images of this size."""
        if self.hidden is not None:
            return self.hidden
        levels = max(1, math.ceil(math.log2(max(height, width) / LARGEST_GRID)))
        return tuple(32 * 2**level for level in range(levels))


class VQOptions(GridOptions):
    codes: int = Field(512, ge=2, le=MOST_CODES, description="how many codes the codebook has")
    code_dim: int = Field(64, ge=1, le=1 << 16, description="size of a code's vector")
    codebook: Literal["ema", "gradient"] = Field(
        "ema",
        description="how the codebook learns: by moving averages of what it stands for, or by "
        "gradient",
    )
    decay: float = Field(0.99, ge=0, lt=1, description="of the moving averages, a step; with ema")
    revive_after: int | None = Field(
        100,
        ge=1,
        le=10**9,
        description="steps without use after which a code starts again at an encoder output; "
        "none: never",
    )


class FSQOptions(GridOptions):
    levels: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        (8, 5, 5, 5),
        min_length=1,
        description="how many values each channel is rounded to; their product is the number of "
        "codes, 1,048,576 at most",
    )


class GumbelOptions(NetworkOptions):
    latent_dim: int = Field(20, ge=1, description="how many categorical variables there are")
    class_names: int = Field(10, ge=2, le=MOST_CODES, description="classes of each variable")
    temperature: float = Field(
        1.0, gt=0, description="of the relaxed samples at the beginning of training"
    )
    min_temperature: float = Field(
        0.5, gt=0, description="where the temperature ends, and stays; not above the first one"
    )
    anneal_steps: int = Field(
        2000,
        ge=1,
        description="training steps in which the temperature falls to its end, exponentially",
    )


class VQLossOptions(Options):
    commitment: float = Field(
        0.25,
        ge=0,
        description="weight of the squared distance that keeps the encoder at its codes: beta in "
        "the paper",
    )
