"""Options of the ELBO loss. No torch here."""

from __future__ import annotations

from pydantic import Field

from vaezoo.options import Options


class ELBOOptions(Options):
    """The weight of the KL divergence, and its warm-up."""

    beta: float = Field(
        1.0, ge=0, description="weight of the KL in nats; 1 is the ELBO (Higgins et al. 2017)"
    )
    warmup: float = Field(
        0.0,
        ge=0,
        le=1,
        description="fraction of the training in which beta rises from 0 (Bowman et al. 2015)",
    )
