"""What the plugin brings, and its options. No torch here: names and help are read without it."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import GaussianOptions, InputSpec, ModelSpec, hookimpl


class VanillaOptions(GaussianOptions):
    """What the shared options hold is all that this model needs: see `vaezoo info vanilla`."""


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
            input_spec=InputSpec(min_size=8, vectors=True),
        )
    )
