"""The plugin's entries: two models, each with its loss. No torch here."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import BottleneckSpec, LossSpec, ModelSpec, hookimpl

_GHOSH = "Ghosh et al. 2019, arXiv:1903.12436"


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    register(
        ModelSpec(
            name="autoencoder",
            other_names=("ae", "convae"),
            base="vanilla",
            summary="Plain autoencoder: mean squared error, no constraint on the latents",
            paper="Hinton & Salakhutdinov 2006, doi:10.1126/science.1127647",
            tags=("deterministic", "convolutional"),
            loss=LossSpec(
                name="reconstruction",
                target="vaezoo_deterministic.losses:ReconstructionLoss",
                summary="The distortion alone: mean squared error for a Gaussian likelihood",
            ),
            # Of a fixed scale: its log-likelihood is the mean squared error.
            parts={"bottleneck": "point", "likelihood": "gaussian"},
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
            parts={"sampler": "gaussian_mixture"},
        )
    )


@hookimpl
def register_bottlenecks(register: Callable[[BottleneckSpec], None]) -> None:
    register(
        BottleneckSpec(
            name="point",
            other_names=("deterministic", "delta", "none", "ae"),
            target="vaezoo_deterministic.point:PointBottleneck",
            options="vaezoo:LatentOptions",
            summary="The latent of an autoencoder: one point, no distribution",
            paper="Hinton & Salakhutdinov 2006, doi:10.1126/science.1127647",
            tags=("deterministic",),
        )
    )
