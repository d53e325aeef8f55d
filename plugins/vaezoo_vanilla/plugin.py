"""The plugin's entries and the loss's options. No torch here: `vaezoo list` works without it."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field

from vaezoo import BottleneckSpec, InputSpec, LossSpec, ModelSpec, Options, hookimpl


class ELBOOptions(Options):
    """The weight of the KL divergence, its warm-up, and its free bits."""

    beta: float = Field(
        1.0, ge=0, description="weight of the KL in nats; 1 is the ELBO (Higgins et al. 2017)"
    )
    warmup: float = Field(
        0.0,
        ge=0,
        le=1,
        description="fraction of the training in which beta rises from 0 (Bowman et al. 2015)",
    )
    free_bits: float = Field(
        0.0,
        ge=0,
        description="nats of the mean KL of each latent dimension (of a grid: each channel) that "
        "cost nothing (Kingma et al. 2016); of the whole rate where the KL has no such parts",
    )


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
            options="vaezoo_vanilla.plugin:ELBOOptions",
            summary="The negative ELBO with a weight on the KL: distortion + beta · rate",
            paper="Kingma & Welling 2013, arXiv:1312.6114; beta: Higgins et al. 2017",
            tags=("elbo", "beta"),
            requires=("elbo",),
        )
    )
