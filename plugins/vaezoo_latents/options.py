"""The options of the models. No torch here."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vaezoo import GaussianOptions, NetworkOptions


class VampPriorOptions(GaussianOptions):
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


class IAFOptions(GaussianOptions):
    latent_dim: int = Field(32, ge=1, description="size of the latent vector")
    flow_steps: int = Field(
        4, ge=0, le=100, description="autoregressive steps after the Gaussian; 0: none"
    )
    flow_hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (320,), min_length=1, description="hidden sizes of each step's network"
    )
    context_dim: int = Field(
        64, ge=1, description="size of the context that the encoder gives to every step"
    )


class SphericalOptions(NetworkOptions):
    latent_dim: int = Field(16, ge=2, description="dimension of the space around the sphere")
