"""The options of these models. No torch here: names and help are read without it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vaezoo import GaussianOptions, NetworkOptions


class VampPriorOptions(GaussianOptions):
    pseudo_inputs: int = Field(
        500, ge=1, le=100_000, description="components of the prior, a learned pseudo-input each"
    )
    pseudo_mean: float = Field(
        0.05, ge=-1e4, le=1e4, description="mean of the values that pseudo-inputs start from"
    )
    pseudo_std: float = Field(
        0.01, ge=0, le=1e4, description="standard deviation of the values that they start from"
    )


class IAFOptions(GaussianOptions):
    latent_dim: int = Field(32, ge=1, description="size of the latent vector")
    flow_steps: int = Field(
        4, ge=0, le=100, description="autoregressive steps after the Gaussian; 0: it alone"
    )
    flow_hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (320,), min_length=1, description="widths of the hidden layers of each step's network"
    )
    context_dim: int = Field(
        64, ge=1, description="numbers that the encoder tells every step besides the Gaussian"
    )


class SphericalOptions(NetworkOptions):
    latent_dim: int = Field(
        16, ge=2, description="numbers in a latent, a point of the sphere in so many dimensions"
    )
