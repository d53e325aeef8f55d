"""The options of the networks `ldm` and `dc_ae`, and of their likelihoods. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from vaezoo import Options
from vaezoo_networks.options import CheckpointingOptions

Widths = tuple[Annotated[int, Field(ge=1)], ...]
Levels = tuple[Annotated[int, Field(ge=0)], ...]


class LDMOptions(CheckpointingOptions):
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
    quant_width: int | None = Field(
        None,
        ge=1,
        description="channels on the outer sides of these two convolutions; none: as on the inner "
        "sides, those that the bottleneck asks for",
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
        if self.quant_width is not None and not (self.quant_conv and self.post_quant_conv):
            raise ValueError("--quant-width needs --quant-conv and --post-quant-conv")
        if wrong := [n for n in self.attention_levels if n >= len(self.hidden)]:
            raise ValueError(
                f"--attention-levels {wrong[0]}: the levels of --hidden are 0 to "
                f"{len(self.hidden) - 1}"
            )
        return self


class DCAEOptions(CheckpointingOptions):
    """The levels of the network, their blocks, and how sizes change between them."""

    test_defaults: ClassVar[Mapping[str, Any]] = {"hidden": (8, 8), "head_dim": 4}

    hidden: Widths = Field(
        (32, 64, 128, 128),
        min_length=2,
        description="channels of each level, from the full size, the first any number and the "
        "others multiples of 4; each but the last halves the size: four levels are f8, six f32",
    )
    encoder_layers: Levels | None = Field(
        None,
        description="blocks of each level of the encoder; 0 for the first: the first layer halves "
        "the size; none: 2 each",
    )
    decoder_layers: Levels | None = Field(
        None,
        description="blocks of each level of the decoder; 0 for the first: the last layer doubles "
        "the size; none: 2 each",
    )
    attention_levels: Levels | None = Field(
        None,
        description="levels of EfficientViT blocks, counted from 0, the full size; the others have "
        "residual blocks; none: the lower half",
    )
    head_dim: int = Field(32, ge=1, le=1 << 12, description="channels of a head of attention")
    attention_scales: tuple[Annotated[int, Field(ge=3, le=63)], ...] = Field(
        (),
        description="odd widths of convolutions of queries, keys and values; each adds as many "
        "heads",
    )
    downsample: Literal["pixel_unshuffle", "conv"] = Field(
        "pixel_unshuffle",
        description="how a level is halved, beside its shortcut: pixel_unshuffle: a convolution, "
        "then from space to channels; conv: a convolution with stride 2",
    )
    upsample: Literal["pixel_shuffle", "interpolate"] = Field(
        "pixel_shuffle",
        description="how a level is doubled, beside its shortcut: pixel_shuffle: a convolution, "
        "then from channels to space; interpolate: each value four times, then a convolution",
    )
    batch_norm_levels: Levels = Field(
        (),
        description="levels of the decoder whose residual blocks have batch norm and ReLU, not RMS "
        "norm and SiLU",
    )

    def layers(self, given: tuple[int, ...] | None) -> tuple[int, ...]:
        """The blocks of each level: those given, or 2 each."""
        return given or (2,) * len(self.hidden)

    def attention(self) -> tuple[int, ...]:
        """The levels of EfficientViT blocks."""
        count = len(self.hidden)
        lower = tuple(range((count + 1) // 2, count))
        return lower if self.attention_levels is None else self.attention_levels

    @model_validator(mode="after")
    def _check_levels(self) -> Self:
        count = len(self.hidden)
        if wrong := [width for width in self.hidden[1:] if width % 4]:
            raise ValueError(f"--hidden {wrong[0]} below the first level is no multiple of 4")
        for flag, layers in (
            ("--encoder-layers", self.encoder_layers),
            ("--decoder-layers", self.decoder_layers),
        ):
            if layers is None:
                continue
            if len(layers) != count:
                raise ValueError(
                    f"{flag} has {len(layers)} numbers and --hidden {count}: give one a level"
                )
            if 0 in layers[1:]:
                raise ValueError(f"{flag} is 0 at a level below the first: give 1 or more")
        for flag, levels in (
            ("--attention-levels", self.attention()),
            ("--batch-norm-levels", self.batch_norm_levels),
        ):
            if too_high := [level for level in levels if level >= count]:
                raise ValueError(
                    f"{flag} {too_high[0]}: the levels of --hidden are 0 to {count - 1}"
                )
        if both := {*self.batch_norm_levels} & {*self.attention()}:
            raise ValueError(
                f"--batch-norm-levels {min(both)} has EfficientViT blocks: it is for levels of "
                "residual blocks"
            )
        if even := [size for size in self.attention_scales if size % 2 == 0]:
            raise ValueError(f"--attention-scales {even[0]} is even: give {even[0] + 1}")
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
