"""Options of the samplers. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from vaezoo import Options


class MixtureOptions(Options):
    """The size of the mixture."""

    components: int = Field(10, ge=1, description="Gaussians of the mixture; 1: one Gaussian")


class FlowMatchingOptions(Options):
    """Options of `flow_matching`."""

    test_defaults: ClassVar[Mapping[str, Any]] = {"steps": 20, "width": 16, "ode_steps": 3}

    steps: int | None = Field(
        None,
        ge=0,
        le=1_000_000_000,
        description="training steps; none: 5000 for vectors, 2000 for grids; 0: it is not fitted",
    )
    batch_size: int = Field(128, ge=1, le=1_000_000, description="latents of a training step")
    lr: float = Field(1e-3, gt=0, le=1, description="largest learning rate of Adam")
    width: int = Field(
        256,
        ge=8,
        le=65_536,
        multiple_of=8,
        description="features of the MLP; a U-Net has an "
        "eighth as many channels on its first level, and a quarter below",
    )
    layers: int = Field(
        4, ge=2, le=1000, description="residual blocks of the MLP; half as many a level of a U-Net"
    )
    conditional: bool = Field(False, description="samples of a class; needs data with classes")
    label_dropout: float = Field(
        0.1, ge=0, lt=1, description="fraction of examples without their class in training"
    )
    guidance: float = Field(
        1.0, ge=0, le=1000, description="weight of the class in sampling; 1: the conditional model"
    )
    ode_steps: int = Field(25, ge=1, le=10_000, description="steps of Heun's method in sampling")
    code_components: int = Field(
        16, ge=1, le=65_536, description="principal components of code vectors that are used"
    )


class NetworkOptions(Options):
    """Options of samplers that train networks on vectors."""

    test_defaults: ClassVar[Mapping[str, Any]] = {"steps": 20, "hidden": (16,)}

    hidden: tuple[Annotated[int, Field(ge=1, le=65_536)], ...] = Field(
        (128, 128), min_length=1, max_length=100, description="sizes of the hidden layers"
    )
    steps: int = Field(
        3000, ge=0, le=1_000_000_000, description="training steps; 0: it is not fitted"
    )
    batch_size: int = Field(256, ge=1, le=1_000_000, description="latents of a training step")
    lr: float = Field(1e-3, gt=0, le=1, description="largest learning rate of Adam")


class FlowOptions(NetworkOptions):
    """Options of `maf`."""

    transforms: int = Field(5, ge=1, le=100, description="transformations of the flow")


class SplineOptions(NetworkOptions):
    """Options of `nsf`."""

    transforms: int = Field(3, ge=1, le=100, description="transformations of the flow")
    bins: int = Field(8, ge=2, le=1000, description="pieces of each spline")


class TwoStageOptions(NetworkOptions):
    """Options of `two_stage`."""

    hidden: tuple[Annotated[int, Field(ge=1, le=65_536)], ...] = Field(
        (256, 256), min_length=1, max_length=100, description="sizes of the hidden layers"
    )
