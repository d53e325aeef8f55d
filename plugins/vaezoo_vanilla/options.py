"""The options of the loss. No torch here."""

from __future__ import annotations

from pydantic import Field

from vaezoo import Options


class ELBOOptions(Options):
    """The weight of the KL divergence, its warm-up, and its free bits."""

    beta: float = Field(
        1.0, ge=0, description="weight of the KL in nats; 1 is the ELBO (Higgins et al. 2017)"
    )
    warmup: float = Field(
        0.0,
        ge=0,
        le=1,
        description="fraction of the training in which beta rises from 0 (Bowman et al. 2015)",
    )
    free_bits: float = Field(
        0.0,
        ge=0,
        description="nats of the mean KL of each latent dimension (of a grid: each channel) that "
        "cost nothing (Kingma et al. 2016); of the whole rate where the KL has no such parts",
    )
