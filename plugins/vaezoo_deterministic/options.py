"""Options of the deterministic autoencoders and of their objectives. No torch here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vaezoo import NetworkOptions, Options

SamplerName = Literal["standard_normal", "gaussian", "mixture"]
RegulariserName = Literal["l2", "gradient_penalty", "spectral_norm", "none"]


class AutoencoderOptions(NetworkOptions):
    sampler: SamplerName = Field(
        "standard_normal",
        description="what latents are drawn from to make new images: standard_normal, though "
        "nothing made them so; or, fitted to the latents after training, a gaussian or a mixture",
    )
    components: int = Field(10, ge=1, description="Gaussians of the mixture, where it is that")


class RaeOptions(Options):
    regulariser: RegulariserName = Field(
        "l2",
        description="what keeps the decoder smooth: l2 of its weights; gradient_penalty of its "
        "output by its latent; spectral_norm: largest singular values of 1; none: latents alone",
    )
    latent_weight: float = Field(
        0.1, ge=0, description="beta: weight of half the squared norm of the latent, in nats"
    )
    decoder_weight: float | None = Field(
        None,
        ge=0,
        description="lambda: weight of the regulariser where it is a term, in nats; none: 0.001 "
        "for l2, 0.05 for gradient_penalty",
    )

    def weight(self) -> float:
        """The regulariser's weight, its own where none was given."""
        if self.decoder_weight is not None:
            return self.decoder_weight
        return {"l2": 0.001, "gradient_penalty": 0.05}.get(self.regulariser, 0.0)
