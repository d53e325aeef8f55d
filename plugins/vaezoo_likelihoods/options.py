"""Options of the likelihoods. This module imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vaezoo import Options

ParameterMode = Literal["shared", "per_value", "predicted"]
"""Where a parameter beside the mean comes from: one number, one for each value, the decoder."""


class ScaleOptions(Options):
    """A scale."""

    scale: float = Field(
        0.25,
        gt=0,
        le=1e4,
        description="standard deviation of a Gaussian likelihood (the scale parameter of another), "
        "where values span [0, 1] or are standardised; the initial value if it is learned",
    )


class LearnedScaleOptions(ScaleOptions):
    """A learned scale."""

    scale_mode: ParameterMode = Field(
        "shared",
        description="shared: one learned scale; per_value: one for each pixel or value; predicted: "
        "by the decoder, for each value of each example",
    )


class StudentTOptions(LearnedScaleOptions):
    """A learned scale, and degrees of freedom."""

    degrees_of_freedom: float = Field(
        5.0,
        gt=1,
        le=1e4,
        description="degrees of freedom: fewer give heavier tails; the initial value if learned",
    )
    learn_degrees_of_freedom: bool = Field(
        False, description="learn the degrees of freedom, one number above 1"
    )


class MixtureOptions(Options):
    """The size of a mixture."""

    mixtures: int = Field(10, ge=1, le=100, description="number of logistics in the mixture")


class DispersionOptions(Options):
    """The dispersion of counts."""

    dispersion_mode: ParameterMode = Field(
        "per_value",
        description="inverse dispersion θ of the negative binomial, whose variance is "
        "mean + mean² / θ: shared: one learned number; per_value: one for each value; predicted: "
        "by the decoder, for each value of each example",
    )
