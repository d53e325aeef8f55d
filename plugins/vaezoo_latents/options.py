"""The options of these models. No torch here: names and help are read without it."""

from __future__ import annotations

from pydantic import Field

from vaezoo import NetworkOptions


class VampPriorOptions(NetworkOptions):
    pseudo_inputs: int = Field(
        500, ge=1, le=100_000, description="components of the prior, a learned pseudo-input each"
    )
    pseudo_mean: float = Field(
        0.05, ge=-1e4, le=1e4, description="mean of the values that pseudo-inputs start from"
    )
    pseudo_std: float = Field(
        0.01, ge=0, le=1e4, description="standard deviation of the values that they start from"
    )
