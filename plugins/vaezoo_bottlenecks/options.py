"""Options of the bottlenecks. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from vaezoo import GaussianOptions


class FullGaussianOptions(GaussianOptions):
    """A latent that is smaller by default: the encoder gives n² / 2 numbers for n values."""

    latent_dim: int = Field(
        32, ge=1, description=GaussianOptions.model_fields["latent_dim"].description
    )


class StudentTOptions(GaussianOptions):
    """The tails of posterior and prior."""

    df: float = Field(
        5.0,
        gt=2,
        le=1e6,
        description="degrees of freedom of posterior and prior: few have heavy tails, many are "
        "nearly Gaussian",
    )


class FlowOptions(GaussianOptions):
    """The number of steps of the flow."""

    test_defaults: ClassVar[Mapping[str, Any]] = {"latent_dim": 4, "flow_steps": 3}

    flow_steps: int = Field(
        10, ge=0, le=1000, description="steps of the flow after the Gaussian; 0: none"
    )
