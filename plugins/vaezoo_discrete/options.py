"""The options of the discrete models and of their loss. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from vaezoo import Options

MAX_CODES = 1 << 20


class AutoregressiveOptions(Options):
    """The transformer over codes, and its training."""

    test_defaults: ClassVar[Mapping[str, Any]] = {"prior_steps": 5}

    prior_steps: int = Field(
        1000,
        ge=0,
        description="training steps of the prior, 64 examples each, after training; 0: it stays "
        "uniform",
    )
    prior_width: int = Field(
        64, ge=1, le=1 << 12, description="embedding size of the prior's transformer"
    )
    prior_layers: int = Field(3, ge=1, le=100, description="layers of the prior's transformer")
    conditional: bool = Field(False, description="samples of a class; needs data with classes")
    label_dropout: float = Field(
        0.1, ge=0, lt=1, description="fraction of examples without their class in its training"
    )


class VQOptions(Options):
    """A codebook, how it learns, and how a gradient passes it."""

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
    estimator: Literal["straight_through", "rotation"] = Field(
        "straight_through",
        description="how the decoder's gradient passes the quantizer: straight_through; rotation: "
        "rotated and scaled as the features are moved to their code",
    )
    cosine: bool = Field(
        False, description="features and codes are unit vectors, compared by their cosine"
    )
    kmeans_steps: int = Field(
        0,
        ge=0,
        le=1000,
        description="steps of k-means on the first batch, whose means start the codebook; 0: "
        "random encoder outputs do",
    )


class FSQOptions(Options):
    levels: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        (8, 5, 5, 5),
        min_length=1,
        description="number of values of each channel; their product is the number of codes, at "
        "most 1,048,576",
    )


class GumbelOptions(Options):
    test_defaults: ClassVar[Mapping[str, Any]] = {"latent_dim": 4}

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
    """Options of the loss of codes."""

    commitment: float = Field(
        0.25,
        ge=0,
        description="weight of the commitment term, |features - codes|²: beta in the paper",
    )
    entropy_weight: float = Field(
        0.1,
        ge=0,
        description="weight of the entropies of codes, with a bottleneck of soft assignments (lfq, "
        "bsq, ibq, soft_vq)",
    )
    diversity: float = Field(
        1.0,
        ge=0,
        description="weight, in them, of the entropy of the codes of a whole batch, which is made "
        "large",
    )
