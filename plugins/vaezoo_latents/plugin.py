"""Registration of the models and their bottlenecks. No torch here."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import BottleneckSpec, InputSpec, ModelSpec, hookimpl

_TOMCZAK = "Tomczak & Welling 2017, arXiv:1705.07120"
_KINGMA = "Kingma et al. 2016, arXiv:1606.04934"
_DAVIDSON = "Davidson et al. 2018, arXiv:1804.00891"


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    register(
        ModelSpec(
            name="vamp_prior",
            target="vaezoo_latents.vamp_prior:VampPriorVAE",
            options="vaezoo_latents.options:VampPriorOptions",
            summary="VAE whose prior is a mixture of posteriors at learned pseudo-inputs",
            paper=_TOMCZAK,
            tags=("elbo", "importance", "gaussian", "prior"),
            parts={"network": "conv", "bottleneck": "gaussian", "likelihood": "auto"},
            part_requires={"bottleneck": ("gaussian",)},
            input_spec=InputSpec(min_size=8, ndims=(0, 1, 2, 3)),
        )
    )
    register(
        ModelSpec(
            name="iaf",
            base="vanilla",
            summary="VAE whose posterior is an inverse autoregressive flow",
            paper=_KINGMA,
            tags=("elbo", "importance", "flow"),
            parts={"bottleneck": "iaf"},
        )
    )
    register(
        ModelSpec(
            name="vmf_vae",
            base="vanilla",
            summary="Hyperspherical VAE: von Mises–Fisher posterior, uniform prior on a sphere",
            paper=_DAVIDSON,
            tags=("elbo", "importance", "sphere"),
            parts={"bottleneck": "vmf"},
        )
    )


@hookimpl
def register_bottlenecks(register: Callable[[BottleneckSpec], None]) -> None:
    register(
        BottleneckSpec(
            name="iaf",
            other_names=("flow", "inverseautoregressiveflow", "maf"),
            target="vaezoo_latents.iaf:IAFBottleneck",
            options="vaezoo_latents.options:IAFOptions",
            summary="Posterior by inverse autoregressive flow, standard Gaussian prior",
            paper=_KINGMA,
            tags=("elbo", "importance", "flow"),
        )
    )
    register(
        BottleneckSpec(
            name="vmf",
            other_names=("vonmisesfisher", "hypersphere", "sphere"),
            target="vaezoo_latents.vmf:SphericalBottleneck",
            options="vaezoo_latents.options:SphericalOptions",
            summary="Von Mises–Fisher posterior and uniform prior on the unit sphere",
            paper=_DAVIDSON,
            tags=("elbo", "importance", "sphere"),
        )
    )
