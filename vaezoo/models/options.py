"""Options that models share: likelihood, networks, Gaussian posterior. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

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


NetworkName = Literal["conv", "resnet", "mlp", "gated_mlp"]


class BackboneOptions(Options):
    """The encoder's and decoder's bodies, and the size of the latent."""

    test_defaults: ClassVar[Mapping[str, Any]] = {"latent_dim": 4, "hidden": (16, 16)}

    latent_dim: int = Field(128, ge=1, description="size of the latent vector")
    network: NetworkName = Field(
        "conv",
        description="bodies of encoder and decoder: conv: strided convolutions; resnet: with "
        "residual blocks; mlp: dense layers, for vectors too; gated_mlp: gated dense layers",
    )
    hidden: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None,
        min_length=1,
        description="conv, resnet: channels of each level, which halves the image; mlp: widths "
        "from the data inwards; none: 32,64,128,256,512, or 512,256 for an mlp",
    )

    def levels(self) -> tuple[int, ...]:
        """The hidden sizes, those of the network where none were given."""
        if self.hidden is not None:
            return self.hidden
        return (512, 256) if "mlp" in self.network else (32, 64, 128, 256, 512)


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
