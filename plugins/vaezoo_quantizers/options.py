"""The options of the quantizers. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from vaezoo import Options
from vaezoo_discrete.options import MAX_CODES, VQOptions


class RVQOptions(VQOptions):
    codebooks: int = Field(4, ge=1, le=64, description="number of codes that are added up")
    shared_codebooks: bool = Field(False, description="all of them are of one codebook")
    quantizer_dropout: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the examples of a training step that are quantized by their first "
        "few codebooks only, so that these alone can be decoded",
    )


class PQOptions(VQOptions):
    codebooks: int = Field(
        4, ge=1, le=64, description="number of groups of channels, each with a codebook of its own"
    )


class MultiScaleOptions(VQOptions):
    scale_sizes: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None,
        min_length=1,
        description="longest side of the grid at each scale, rising to that of the features; none: "
        "1, 2, 4, ... and the whole grid",
    )
    convolutions: int = Field(
        4,
        ge=0,
        le=64,
        description="convolutions after the upsampling of scales, each for neighbouring scales",
    )


class HierarchicalVQOptions(VQOptions):
    test_defaults: ClassVar[Mapping[str, Any]] = {"level_width": 32, "level_blocks": 1}

    code_levels: int = Field(
        2,
        ge=2,
        le=8,
        description="number of levels of codes; each has half the size of the one below, and a "
        "codebook of its own",
    )
    level_width: int = Field(
        128, ge=1, le=1 << 14, description="channels of the layers between two levels"
    )
    level_blocks: int = Field(
        2, ge=0, le=64, description="residual blocks between two levels, upwards and downwards each"
    )


class _BinaryOptions(Options):
    bits: int = Field(10, ge=1, le=1024, description="number of channels, each of one bit")
    codebooks: int = Field(
        1,
        ge=1,
        le=64,
        description="number of groups of bits with an index each: a prior needs few codes in each",
    )


class LFQOptions(_BinaryOptions):
    temperature: float = Field(
        0.01, gt=0, description="temperature of the soft assignments that entropies are of"
    )
    joint_entropy: bool = Field(
        True,
        description="the entropy of a batch is that of whole codes; else it is summed over bits",
    )


class BSQOptions(_BinaryOptions):
    temperature: float = Field(
        0.02, gt=0, description="temperature of the soft assignments that entropies are of"
    )
    joint_entropy: bool = Field(
        False,
        description="the entropy of a batch is that of whole codes; else it is summed over bits",
    )


class SimVQOptions(Options):
    codes: int = Field(512, ge=2, le=MAX_CODES, description="number of codes in the codebook")
    code_dim: int = Field(64, ge=1, le=1 << 16, description="size of a code vector")
    estimator: Literal["straight_through", "rotation"] = Field(
        "straight_through",
        description="how the decoder's gradient passes the quantizer: straight_through; rotation: "
        "rotated and scaled as the features are moved to their code",
    )


class IBQOptions(Options):
    codes: int = Field(512, ge=2, le=MAX_CODES, description="number of codes in the codebook")
    code_dim: int = Field(64, ge=1, le=1 << 16, description="size of a code vector")
    temperature: float | None = Field(
        0.01,
        gt=0,
        description="temperature of the soft assignments that entropies are of; none: no entropies",
    )


class SoftVQOptions(Options):
    codes: int = Field(512, ge=2, le=MAX_CODES, description="number of codes in the codebook")
    code_dim: int = Field(64, ge=1, le=1 << 16, description="size of a code vector")
    temperature: float = Field(
        0.14, gt=0, description="temperature of the weights of the codes in a mixture"
    )
