"""What the plugin brings, and its options. No torch here: names and help are read without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from vaezoo import LikelihoodOptions, ModelSpec, Takes, hookimpl


class VanillaOptions(LikelihoodOptions):
    latent_dim: int = Field(128, ge=1, description="size of the latent vector")
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (32, 64, 128, 256, 512),
        min_length=1,
        description="channels of each level; every level halves the image",
    )


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    register(
        ModelSpec(
            name="vanilla",
            target="vaezoo_vanilla.model:VanillaVAE",
            options="vaezoo_vanilla.plugin:VanillaOptions",
            summary="Convolutional VAE with a Gaussian latent",
            paper="Kingma & Welling 2013, arXiv:1312.6114",
            tags=("elbo", "importance", "convolutional", "gaussian"),
            loss="elbo",
            takes=Takes(min_size=8),
        )
    )
