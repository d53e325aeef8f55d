"""The plugin's entries: samplers of latents. No torch here."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import SamplerSpec, hookimpl

_GHOSH = "Ghosh et al. 2019, arXiv:1903.12436"


@hookimpl
def register_samplers(register: Callable[[SamplerSpec], None]) -> None:
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
