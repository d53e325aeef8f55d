"""Options of the bottlenecks. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, field_validator

from vaezoo import Options


class LatentOptions(Options):
    """The size of the latent, whether it is a grid, and the limits of its log-variance."""

    test_defaults: ClassVar[Mapping[str, Any]] = {"latent_dim": 4}

    latent_dim: int = Field(
        128, ge=1, description="size of the latent vector, or channels of a grid of latents"
    )
    latent_grid: bool = Field(
        False,
        description="a latent vector at each position of the network's grid of features, as in an "
        "autoencoder for latent diffusion, instead of one for the example",
    )
    logvar_range: tuple[float, float] = Field(
        (-20.0, 20.0), description="range that the posterior's log-variance is clamped to"
    )

    @field_validator("logvar_range")
    @classmethod
    def _check_order(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] >= value[1]:
            raise ValueError("the lower limit comes first, as in -6,2")
        return value


class FullGaussianOptions(LatentOptions):
    """A latent that is smaller by default: the encoder gives n² / 2 numbers for n values."""

    latent_dim: int = Field(
        32, ge=1, description=LatentOptions.model_fields["latent_dim"].description
    )


class LaplaceOptions(LatentOptions):
    """The shared options of the bottlenecks."""


class StudentTOptions(LatentOptions):
    """The tails of posterior and prior."""

    df: float = Field(
        5.0,
        gt=2,
        le=1e6,
        description="degrees of freedom of posterior and prior: few have heavy tails, many are "
        "nearly Gaussian",
    )


class FlowOptions(LatentOptions):
    """The number of steps of the flow."""

    test_defaults: ClassVar[Mapping[str, Any]] = {"latent_dim": 4, "flow_steps": 3}

    flow_steps: int = Field(
        10, ge=0, le=1000, description="steps of the flow after the Gaussian; 0: none"
    )
