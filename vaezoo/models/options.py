"""Options that models share: likelihood, networks, Gaussian posterior. No torch here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from vaezoo.nn.options import BackboneOptions
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


class NetworkOptions(BackboneOptions, LikelihoodOptions):
    """The encoder's and decoder's bodies, the size of the latent, and the likelihood."""


class GaussianOptions(NetworkOptions):
    """The same with a Gaussian posterior."""

    logvar_range: tuple[float, float] = Field(
        (-20.0, 20.0),
        description="range that the posterior's log-variance is kept in",
    )

    @field_validator("logvar_range")
    @classmethod
    def _rising(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] >= value[1]:
            raise ValueError("give the lower end first, as in -6,2")
        return value
