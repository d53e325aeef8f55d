"""Registration of the models. No torch here."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import InputSpec, ModelSpec, hookimpl


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    for name, target, options, summary, paper, tags in (
        (
            "vamp_prior",
            "vamp_prior:VampPriorVAE",
            "VampPriorOptions",
            "VAE whose prior is a mixture of posteriors at learned pseudo-inputs",
            "Tomczak & Welling 2017, arXiv:1705.07120",
            ("gaussian", "prior"),
        ),
        (
            "iaf",
            "iaf:IAFVAE",
            "IAFOptions",
            "VAE whose posterior is an inverse autoregressive flow",
            "Kingma et al. 2016, arXiv:1606.04934",
            ("flow",),
        ),
        (
            "vmf_vae",
            "vmf_vae:SphericalVAE",
            "SphericalOptions",
            "Hyperspherical VAE: von Mises–Fisher posterior, uniform prior on a sphere",
            "Davidson et al. 2018, arXiv:1804.00891",
            ("sphere",),
        ),
    ):
        register(
            ModelSpec(
                name=name,
                target=f"vaezoo_latents.{target}",
                options=f"vaezoo_latents.options:{options}",
                summary=summary,
                paper=paper,
                tags=("elbo", "importance", *tags),
                input_spec=InputSpec(ndims=(0, 1, 2, 3), min_size=8),
            )
        )
