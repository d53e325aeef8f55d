"""The options of the likelihoods. No torch here."""

from __future__ import annotations

from pydantic import Field

from vaezoo import Options


class ScaleOptions(Options):
    """The scale of a Gaussian likelihood."""

    scale: float = Field(
        0.25,
        gt=0,
        le=1e4,
        description="standard deviation of a Gaussian likelihood, where values span [0, 1] or are "
        "standardised; the initial value if it is learned",
    )
