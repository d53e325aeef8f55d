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
            name="maf",
            other_names=("masked_autoregressive_flow",),
            target="vaezoo_samplers.flows:masked_autoregressive",
            options="vaezoo_samplers.options:FlowOptions",
            summary="A masked autoregressive flow, with an exact density (extra `flows`)",
            paper="Papamakarios et al. 2017, arXiv:1705.07057",
            requires=("continuous",),
        )
    )
    register(
        SamplerSpec(
            name="nsf",
            other_names=("spline", "neural_spline_flow"),
            target="vaezoo_samplers.flows:neural_spline",
            options="vaezoo_samplers.options:SplineOptions",
            summary="A neural spline flow, with an exact density (extra `flows`)",
            paper="Durkan et al. 2019, arXiv:1906.04032",
            requires=("continuous",),
        )
    )
    register(
        SamplerSpec(
            name="two_stage",
            other_names=("second_vae", "2svae"),
            target="vaezoo_samplers.two_stage:TwoStageSampler",
            options="vaezoo_samplers.options:TwoStageOptions",
            summary="A second VAE, on the latents of the first",
            paper="Dai & Wipf 2019, arXiv:1903.05789",
            requires=("continuous",),
        )
    )
    register(
        SamplerSpec(
            name="hypersphere",
            other_names=("sphere", "spherical"),
            target="vaezoo_samplers.hypersphere:HypersphereSampler",
            summary="A uniform direction with a fitted radius, or the uniform sphere",
            paper="Davidson et al. 2018, arXiv:1804.00891",
            requires=("continuous",),
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
