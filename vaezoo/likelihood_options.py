"""Options that models share which let the user choose the likelihood. No torch here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vaezoo.options import Options

LikelihoodName = Literal["auto", "bernoulli", "gaussian", "gaussian_learned"]


class LikelihoodOptions(Options):
    """What the decoder's output means, and how far from the data it may lie."""

    likelihood: LikelihoodName = Field(
        "auto",
        description="what the decoder's output means: bernoulli, gaussian of a fixed scale, or "
        "gaussian_learned; auto: bernoulli for binary data, else gaussian_learned",
    )
    scale: float = Field(
        0.25,
        gt=0,
        le=1e4,
        description="standard deviation of a Gaussian likelihood, where values span [0, 1]; "
        "the starting value if it is learned",
    )
