"""The plugin's entries: two models, each with its loss. No torch here."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import InputSpec, LossSpec, ModelSpec, hookimpl

_GHOSH = "Ghosh et al. 2019, arXiv:1903.12436"


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    register(
        ModelSpec(
            name="autoencoder",
            other_names=("ae", "convae"),
            target="vaezoo_deterministic.model:Autoencoder",
            options="vaezoo_deterministic.options:AutoencoderOptions",
            summary="Plain autoencoder: mean squared error, no constraint on the latents",
            paper="Hinton & Salakhutdinov 2006, doi:10.1126/science.1127647",
            tags=("deterministic", "convolutional"),
            loss=LossSpec(
                name="reconstruction",
                target="vaezoo_deterministic.losses:ReconstructionLoss",
                summary="The distortion alone: mean squared error for a Gaussian likelihood",
            ),
            # Of a fixed scale: its log-likelihood is the mean squared error.
            model_options={"likelihood": "gaussian"},
            input_spec=InputSpec(ndims=(0, 1, 2, 3), min_size=8),
        )
    )
    register(
        ModelSpec(
            name="rae",
            other_names=("rae2", "regularizedae"),
            base="autoencoder",
            summary="Regularised autoencoder: a smooth decoder, a mixture fitted to its latents",
            paper=_GHOSH,
            loss=LossSpec(
                name="rae",
                target="vaezoo_deterministic.losses:RAELoss",
                options="vaezoo_deterministic.options:RAEOptions",
                summary="Distortion, the norm of the latent, and a regulariser of the decoder",
                paper=_GHOSH,
                requires=("deterministic",),
            ),
            model_options={"sampler": "mixture"},
        )
    )
