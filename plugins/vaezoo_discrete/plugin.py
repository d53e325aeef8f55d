"""Registration of the discrete models, their bottlenecks, sampler and losses. No torch here."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import BottleneckSpec, InputSpec, LossSpec, ModelSpec, SamplerSpec, hookimpl

_OORD = "van den Oord et al. 2017, arXiv:1711.00937"
_MENTZER = "Mentzer et al. 2023, arXiv:2309.15505"
_JANG = "Jang et al. 2016, arXiv:1611.01144; Maddison et al. 2016, arXiv:1611.00712"
_CODES = ("elbo", "discrete", "deterministic", "grid")


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    register(
        ModelSpec(
            name="vq_vae",
            other_names=("vq",),
            base="vanilla",
            summary="Vector quantization by a learned codebook; its prior is fitted after training",
            paper=_OORD,
            tags=(*_CODES, "codebook", "convolutional"),
            parts={"network": "resnet", "bottleneck": "vq", "sampler": "autoregressive"},
            loss=LossSpec(
                name="vq",
                target="vaezoo_discrete.losses:VQLoss",
                options="vaezoo_discrete.options:VQLossOptions",
                summary="The loss `codes` with the commitment and codebook terms of VQ-VAE",
                paper=_OORD,
                tags=("elbo", "discrete"),
                requires=("grid",),
            ),
            input_spec=InputSpec(ndims=(1, 2, 3), min_size=8),
        )
    )
    register(
        ModelSpec(
            name="fsq",
            other_names=("fsqvae",),
            base="vanilla",
            summary="Finite scalar quantization (FSQ); its prior is fitted after training",
            paper=_MENTZER,
            tags=(*_CODES, "convolutional"),
            parts={"network": "resnet", "bottleneck": "fsq", "sampler": "autoregressive"},
            loss=LossSpec(
                name="codes",
                target="vaezoo_discrete.losses:CodesLoss",
                summary="The negative ELBO of a grid of codes, and the use of its codebook",
                paper=_MENTZER,
                tags=("elbo", "discrete"),
                requires=("grid",),
            ),
            input_spec=InputSpec(ndims=(1, 2, 3), min_size=8),
        )
    )
    register(
        ModelSpec(
            name="gumbel_vae",
            other_names=("categoricalvae", "catvae", "discretevae", "dvae", "gumbelsoftmax"),
            base="vanilla",
            summary="Categorical latents, trained with Gumbel-softmax samples",
            paper=_JANG,
            tags=("elbo", "importance", "discrete"),
            parts={"bottleneck": "gumbel"},
        )
    )


@hookimpl
def register_bottlenecks(register: Callable[[BottleneckSpec], None]) -> None:
    register(
        BottleneckSpec(
            name="vq",
            other_names=("vectorquantizer", "codebook"),
            target="vaezoo_discrete.vq:VQBottleneck",
            options="vaezoo_discrete.options:VQOptions",
            summary="A grid of codes of a learned codebook, uniform prior",
            paper=_OORD,
            tags=(*_CODES, "codebook"),
            requires=("grid",),
        )
    )
    register(
        BottleneckSpec(
            name="fsq",
            other_names=("finitescalarquantizer",),
            target="vaezoo_discrete.fsq:FSQBottleneck",
            options="vaezoo_discrete.options:FSQOptions",
            summary="A grid of channels that are rounded to a few values, uniform prior",
            paper=_MENTZER,
            tags=_CODES,
            requires=("grid",),
        )
    )
    register(
        BottleneckSpec(
            name="gumbel",
            other_names=("categorical", "gumbelsoftmax", "concrete"),
            target="vaezoo_discrete.gumbel:GumbelBottleneck",
            options="vaezoo_discrete.options:GumbelOptions",
            summary="Categorical latents with relaxed samples in training, uniform prior",
            paper=_JANG,
            tags=("elbo", "importance", "discrete"),
        )
    )


@hookimpl
def register_samplers(register: Callable[[SamplerSpec], None]) -> None:
    register(
        SamplerSpec(
            name="autoregressive",
            other_names=("pixelcnn", "transformer", "gpt"),
            target="vaezoo_discrete.autoregressive:AutoregressiveSampler",
            options="vaezoo_discrete.options:AutoregressiveOptions",
            summary="A transformer over the indices of codes, in raster order",
            paper=_OORD,
            requires=("discrete",),
        )
    )
