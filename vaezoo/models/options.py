"""Options that models share: networks, likelihood, Gaussian posterior. No torch here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from vaezoo.nn.options import BackboneOptions
from vaezoo.options import Options

LikelihoodName = Literal["auto", "bernoulli", "gaussian", "gaussian_learned"]


class LikelihoodOptions(Options):
    """The likelihood p(x|z), and the scale of a Gaussian one."""

    likelihood: LikelihoodName = Field(
        "auto",
        description="distribution of the data given the latent: bernoulli, gaussian with a fixed "
        "scale, or gaussian_learned; auto: bernoulli for binary data, else gaussian_learned",
    )
    scale: float = Field(
        0.25,
        gt=0,
        le=1e4,
        description="standard deviation of a Gaussian likelihood, where values span [0, 1] or are "
        "standardised; the initial value if it is learned",
    )


class NetworkOptions(BackboneOptions, LikelihoodOptions):
    """The network of encoder and decoder, the size of the latent, and the likelihood."""


class GaussianOptions(NetworkOptions):
    """NetworkOptions for a model with a Gaussian posterior."""

    logvar_range: tuple[float, float] = Field(
        (-20.0, 20.0), description="range that the posterior's log-variance is clamped to"
    )

    @field_validator("logvar_range")
    @classmethod
    def _check_order(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] >= value[1]:
            raise ValueError("the lower limit comes first, as in -6,2")
        return value
