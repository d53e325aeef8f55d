"""The plugin's entries. No torch and no pydantic here: `vaezoo list` works without them."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import BottleneckSpec, InputSpec, LossSpec, ModelSpec, hookimpl


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    register(
        ModelSpec(
            name="vanilla",
            other_names=("vae", "betavae", "standardvae", "convvae", "basicvae", "gaussianvae"),
            # An encoder, a bottleneck, a decoder and a likelihood: all of it is in its parts.
            target="vaezoo.models.base:EncoderDecoderVAE",
            parts={"network": "conv", "bottleneck": "gaussian", "likelihood": "auto"},
            summary="Convolutional VAE with a Gaussian latent",
            paper="Kingma & Welling 2013, arXiv:1312.6114",
            tags=("elbo", "importance", "convolutional", "gaussian"),
            loss="elbo",
            input_spec=InputSpec(ndims=(0, 1, 2, 3), min_size=8),
        )
    )


@hookimpl
def register_bottlenecks(register: Callable[[BottleneckSpec], None]) -> None:
    register(
        BottleneckSpec(
            name="gaussian",
            target="vaezoo_vanilla.bottleneck:GaussianBottleneck",
            options="vaezoo:GaussianOptions",
            summary="Diagonal Gaussian posterior, standard Gaussian prior",
            paper="Kingma & Welling 2013, arXiv:1312.6114",
            tags=("elbo", "importance", "gaussian"),
            default=True,
        )
    )


@hookimpl
def register_losses(register: Callable[[LossSpec], None]) -> None:
    register(
        LossSpec(
            name="elbo",
            target="vaezoo_vanilla.loss:ELBOLoss",
            options="vaezoo_vanilla.options:ELBOOptions",
            summary="The negative ELBO with a weight on the KL: distortion + beta · rate",
            paper="Kingma & Welling 2013, arXiv:1312.6114; beta: Higgins et al. 2017",
            tags=("elbo", "beta"),
            requires=("elbo",),
        )
    )
