"""Options of the deterministic autoencoders and of their losses. No torch here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vaezoo import Options

RegulariserName = Literal["l2", "gradient_penalty", "spectral_norm", "none"]


class RAEOptions(Options):
    """The regulariser of the decoder, and the weights of the terms."""

    regulariser: RegulariserName = Field(
        "l2",
        description="of the decoder: l2: squared norm of its weights; gradient_penalty: squared "
        "norm of its Jacobian; spectral_norm: singular values of at most 1; none",
    )
    latent_weight: float = Field(
        0.1, ge=0, description="beta: weight of half the squared norm of the latent, in nats"
    )
    decoder_weight: float | None = Field(
        None,
        ge=0,
        description="lambda: weight of l2 or gradient_penalty, in nats; none: 0.001 "
        "for l2, 0.05 for gradient_penalty",
    )

    def weight(self) -> float:
        """The regulariser's weight: `decoder_weight`, or the default of the regulariser."""
        if self.decoder_weight is not None:
            return self.decoder_weight
        return {"l2": 0.001, "gradient_penalty": 0.05}.get(self.regulariser, 0.0)
