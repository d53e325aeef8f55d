"""Registration of the models. No torch here."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import InputSpec, ModelSpec, hookimpl


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    register(
        ModelSpec(
            name="vamp_prior",
            target="vaezoo_latents.vamp_prior:VampPriorVAE",
            options="vaezoo_latents.options:VampPriorOptions",
            summary="VAE whose prior is a mixture of posteriors at learned pseudo-inputs",
            paper="Tomczak & Welling 2017, arXiv:1705.07120",
            tags=("elbo", "importance", "gaussian", "prior"),
            input_spec=InputSpec(min_size=8, vectors=True),
        )
    )
    register(
        ModelSpec(
            name="iaf",
            target="vaezoo_latents.iaf:IAFVAE",
            options="vaezoo_latents.options:IAFOptions",
            summary="VAE whose posterior is an inverse autoregressive flow",
            paper="Kingma et al. 2016, arXiv:1606.04934",
            tags=("elbo", "importance", "flow"),
            input_spec=InputSpec(min_size=8, vectors=True),
        )
    )
    register(
        ModelSpec(
            name="vmf_vae",
            target="vaezoo_latents.vmf_vae:SphericalVAE",
            options="vaezoo_latents.options:SphericalOptions",
            summary="Hyperspherical VAE: von Mises–Fisher posterior, uniform prior on a sphere",
            paper="Davidson et al. 2018, arXiv:1804.00891",
            tags=("elbo", "importance", "sphere"),
            input_spec=InputSpec(min_size=8, vectors=True),
        )
    )
