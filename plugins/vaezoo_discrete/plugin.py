"""Registration of the discrete models and losses. No torch here."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import InputSpec, LossSpec, ModelSpec, hookimpl

_OORD = "van den Oord et al. 2017, arXiv:1711.00937"
_MENTZER = "Mentzer et al. 2023, arXiv:2309.15505"
_IMAGES = InputSpec(min_size=8)


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    register(
        ModelSpec(
            name="vq_vae",
            other_names=("vq", "vqvae2"),
            target="vaezoo_discrete.vq:VQVAE",
            options="vaezoo_discrete.options:VQOptions",
            summary="Vector quantization by a learned codebook; its prior is fitted after training",
            paper=_OORD,
            tags=("elbo", "discrete", "deterministic", "convolutional", "grid", "codebook"),
            loss=LossSpec(
                name="vq",
                target="vaezoo_discrete.losses:VQLoss",
                options="vaezoo_discrete.options:VQLossOptions",
                summary="The loss `codes` with the commitment and codebook terms of VQ-VAE",
                paper=_OORD,
                tags=("elbo", "discrete"),
                requires=("codebook",),
            ),
            input_spec=_IMAGES,
        )
    )
    register(
        ModelSpec(
            name="fsq",
            other_names=("fsqvae",),
            target="vaezoo_discrete.fsq:FSQVAE",
            options="vaezoo_discrete.options:FSQOptions",
            summary="Finite scalar quantization (FSQ); its prior is fitted after training",
            paper=_MENTZER,
            tags=("elbo", "discrete", "deterministic", "convolutional", "grid"),
            loss=LossSpec(
                name="codes",
                target="vaezoo_discrete.losses:CodesLoss",
                summary="The negative ELBO of a grid of codes, and the use of its codebook",
                paper=_MENTZER,
                tags=("elbo", "discrete"),
                requires=("grid",),
            ),
            input_spec=_IMAGES,
        )
    )
    register(
        ModelSpec(
            name="gumbel_vae",
            other_names=("categoricalvae", "catvae", "discretevae", "dvae", "gumbelsoftmax"),
            target="vaezoo_discrete.gumbel:GumbelVAE",
            options="vaezoo_discrete.options:GumbelOptions",
            summary="Categorical latents, trained with Gumbel-softmax samples",
            paper="Jang et al. 2016, arXiv:1611.01144; Maddison et al. 2016, arXiv:1611.00712",
            tags=("elbo", "importance", "discrete"),
            input_spec=InputSpec(ndims=(0, 1, 2, 3), min_size=8),
        )
    )
