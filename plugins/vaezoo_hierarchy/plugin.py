"""Options and registration of the ladder VAE. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from vaezoo import InputSpec, ModelSpec, Options, hookimpl
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


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    register(
        ModelSpec(
            name="ladder_vae",
            other_names=("lvae", "hvae", "hierarchicalvae"),
            target="vaezoo_hierarchy.ladder:LadderVAE",
            options="vaezoo_hierarchy.plugin:LadderOptions",
            summary="Ladder VAE: several levels of latents with top-down inference",
            paper="Sønderby et al. 2016, arXiv:1602.02282",
            tags=("elbo", "importance", "hierarchy"),
            parts={"network": "conv", "likelihood": "auto"},
            # Without warm-up the upper levels are not used, as the paper found.
            loss_options={"warmup": 0.1},
            input_spec=InputSpec(ndims=(0, 1, 2, 3), min_size=8),
        )
    )
