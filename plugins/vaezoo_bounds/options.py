"""Options of the bounds. No torch here: names and help are read without it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vaezoo import Options


class IwaeOptions(Options):
    samples: int = Field(
        5,
        ge=1,
        le=10_000,
        description="draws of each example under one logarithm: K; 1 is the ELBO",
    )
    gradient: Literal["standard", "doubly_reparameterized"] = Field(
        "standard",
        description="of the encoder: the bound's own, or an estimate of the same mean whose noise "
        "does not drown it as the draws grow (Tucker et al. 2018)",
    )


class MiwaeOptions(IwaeOptions):
    samples: int = Field(
        4,
        ge=1,
        le=10_000,
        description="draws of each example under one logarithm: K; 1 is the ELBO",
    )
    groups: int = Field(
        2,
        ge=1,
        le=10_000,
        description="logarithms that are averaged: M; 1 is the IWAE. K · M draws in all",
    )
