"""Options of the losses. No torch here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vaezoo import Options


class IWAEOptions(Options):
    """The number of samples, and the gradient estimator of the encoder."""

    samples: int = Field(
        5,
        ge=1,
        le=10_000,
        description="samples of each example in one bound: K; 1 is the ELBO",
    )
    gradient: Literal["standard", "doubly_reparameterized"] = Field(
        "standard",
        description="gradient of the encoder: that of the bound, or an unbiased estimate whose "
        "noise does not grow with the number of samples (Tucker et al. 2018)",
    )


class MIWAEOptions(IWAEOptions):
    """The numbers of samples and of bounds, and the gradient estimator of the encoder."""

    samples: int = Field(
        4,
        ge=1,
        le=10_000,
        description="samples of each example in one bound: K; 1 is the ELBO",
    )
    groups: int = Field(
        2,
        ge=1,
        le=10_000,
        description="bounds that are averaged: M; 1 is the IWAE. K · M samples in all",
    )
