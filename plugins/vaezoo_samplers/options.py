"""Options of the samplers. No torch here."""

from __future__ import annotations

from pydantic import Field

from vaezoo import Options


class MixtureOptions(Options):
    """The size of the mixture."""

    components: int = Field(10, ge=1, description="Gaussians of the mixture; 1: one Gaussian")
