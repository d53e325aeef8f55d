"""The options of the models. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from vaezoo import Options
from vaezoo.models.options import LogvarRange


class VampPriorOptions(Options):
    pseudo_inputs: int = Field(
        500,
        ge=1,
        le=100_000,
        description="number of components of the prior, each with a learned pseudo-input",
    )
    pseudo_mean: float = Field(
        0.05, ge=-1e4, le=1e4, description="mean of the initial values of pseudo-inputs"
    )
    pseudo_std: float = Field(
        0.01, ge=0, le=1e4, description="standard deviation of the initial values"
    )


class IAFOptions(Options):
    test_defaults: ClassVar[Mapping[str, Any]] = {"latent_dim": 4}

    latent_dim: int = Field(32, ge=1, description="size of the latent vector")
    logvar_range: LogvarRange = Field(
        (-20.0, 20.0), description="range that the Gaussian's log-variance is clamped to"
    )
    flow_steps: int = Field(
        4, ge=0, le=100, description="autoregressive steps after the Gaussian; 0: none"
    )
    flow_hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (320,), min_length=1, description="hidden sizes of each step's network"
    )
    context_dim: int = Field(
        64, ge=1, description="size of the context that the encoder gives to every step"
    )


class SphericalOptions(Options):
    test_defaults: ClassVar[Mapping[str, Any]] = {"latent_dim": 4}

    latent_dim: int = Field(16, ge=2, description="dimension of the space around the sphere")
