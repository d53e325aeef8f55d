"""The options of the ladder VAE. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from vaezoo import Options
from vaezoo.models.options import LogvarRange


class LadderOptions(Options):
    test_defaults: ClassVar[Mapping[str, Any]] = {"latent_dim": 4}

    latent_dim: int = Field(
        32, ge=1, description="size of the lowest level, which the decoder gets"
    )
    upper: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (16, 8), description="sizes of the levels above it, upwards; empty: a VAE of one level"
    )
    level_hidden: int = Field(256, ge=1, description="hidden size of the layers between levels")
    logvar_range: LogvarRange = Field(
        (-20.0, 20.0), description="range that the posteriors' log-variances are clamped to"
    )
