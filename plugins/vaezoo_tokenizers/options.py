"""The options of the network `ldm` and of its likelihoods. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from vaezoo import Options

Widths = tuple[Annotated[int, Field(ge=1)], ...]
Levels = tuple[Annotated[int, Field(ge=0)], ...]


class LDMOptions(Options):
    """The levels of the network, their blocks, and its attention."""

    test_defaults: ClassVar[Mapping[str, Any]] = {
        "hidden": (8, 8),
        "layers_per_block": 1,
        "norm_groups": 4,
    }

    hidden: Widths = Field(
        (32, 64, 128),
        min_length=1,
        description="channels of each level, from the full size; each but the last halves the "
        "size, so three levels are f4, four f8 and five f16",
    )
    layers_per_block: int = Field(
        2, ge=1, le=64, description="residual blocks of each level; the decoder has one more"
    )
    norm_groups: int = Field(
        32, ge=1, description="groups of each GroupNorm; they divide the channels of each level"
    )
    attention: bool = Field(
        True, description="self-attention between the two residual blocks after the lowest level"
    )
    attention_levels: Levels = Field(
        (),
        description="levels whose residual blocks are each followed by self-attention, counted "
        "from 0, the full size; its memory grows with the square of the number of positions",
    )
    quant_conv: bool = Field(
        True, description="a convolution of width 1 after the last one of the encoder"
    )
    post_quant_conv: bool = Field(
        True, description="a convolution of width 1 before the first one of the decoder"
    )

    @model_validator(mode="after")
    def _check_levels(self) -> Self:
        for width in self.hidden:
            if width % self.norm_groups:
                fits = [n for n in range(1, 65) if all(w % n == 0 for w in self.hidden)]
                raise ValueError(
                    f"--norm-groups {self.norm_groups} does not divide {width} of --hidden: "
                    f"give {' or '.join(map(str, fits[-4:]))}"
                )
        if wrong := [n for n in self.attention_levels if n >= len(self.hidden)]:
            raise ValueError(
                f"--attention-levels {wrong[0]}: the levels of --hidden are 0 to "
                f"{len(self.hidden) - 1}"
            )
        return self


class LinearOptions(Options):
    """The scale of a likelihood with an unbounded location."""

    scale: float = Field(
        0.5,
        gt=0,
        le=1e4,
        description="scale parameter, where values span [0, 1]; 0.5 of laplace_linear is the "
        "absolute error of latent diffusion, whose values span [-1, 1]; the initial value if "
        "learned",
    )
    learn_scale: bool = Field(False, description="learn the scale, one number")
