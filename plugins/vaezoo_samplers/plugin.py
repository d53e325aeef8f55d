"""The plugin's entries: samplers of latents. No torch here."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import SamplerSpec, hookimpl

_GHOSH = "Ghosh et al. 2019, arXiv:1903.12436"


@hookimpl
def register_samplers(register: Callable[[SamplerSpec], None]) -> None:
    register(
        SamplerSpec(
            name="flow_matching",
            other_names=("rectified_flow", "latent_diffusion", "diffusion", "ldm"),
            target="vaezoo_samplers.flow_matching:FlowMatchingSampler",
            options="vaezoo_samplers.options:FlowMatchingOptions",
            summary="A flow from noise to vectors, grids or codes, also of a given class",
            paper="Liu et al. 2022, arXiv:2209.03003; Lipman et al. 2022, arXiv:2210.02747",
        )
    )
    register(
        SamplerSpec(
            name="gaussian_mixture",
            other_names=("gmm", "mixture", "mog"),
            target="vaezoo_samplers.mixture:GaussianMixtureSampler",
            options="vaezoo_samplers.options:MixtureOptions",
            summary="Gaussians with full covariances, fitted to the latents by EM",
            paper=_GHOSH,
            requires=("continuous",),
        )
    )
    register(
        SamplerSpec(
            name="gaussian",
            other_names=("fullgaussian", "normal"),
            target="vaezoo_samplers.mixture:single_gaussian",
            summary="One Gaussian with full covariance, fitted to the latents",
            paper=_GHOSH,
            requires=("continuous",),
        )
    )
