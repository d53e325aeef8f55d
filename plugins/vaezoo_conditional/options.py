"""The options of the model. No torch here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vaezoo import Options


class ConditionalOptions(Options):
    """The size of the label embedding, and the kind of prior."""

    label_dim: int = Field(
        16, ge=1, le=10_000, description="size of the label embedding of encoder and decoder"
    )
    prior: Literal["learned", "standard"] = Field(
        "learned",
        description="learned: a diagonal Gaussian for each class; standard: a standard Gaussian "
        "for all classes",
    )
