"""The plugin's entry and its options. No torch here: `vaezoo list` and help work without it."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import GaussianOptions, InputSpec, ModelSpec, hookimpl


class VanillaOptions(GaussianOptions):
    """The shared options of models with a Gaussian posterior: see `vaezoo info vanilla`."""


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    register(
        ModelSpec(
            name="vanilla",
            other_names=("vae", "betavae", "standardvae", "convvae", "basicvae", "gaussianvae"),
            target="vaezoo_vanilla.model:VanillaVAE",
            options="vaezoo_vanilla.plugin:VanillaOptions",
            summary="Convolutional VAE with a Gaussian latent",
            paper="Kingma & Welling 2013, arXiv:1312.6114",
            tags=("elbo", "importance", "convolutional", "gaussian"),
            loss="elbo",
            input_spec=InputSpec(min_size=8, vectors=True),
        )
    )
