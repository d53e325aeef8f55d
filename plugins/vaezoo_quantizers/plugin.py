"""Registration of the quantizers, each a bottleneck for any network with a grid, and of `vq_vae_2`.

No torch here.
"""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import BottleneckSpec, InputSpec, ModelSpec, hookimpl

_CODES = ("elbo", "discrete", "deterministic", "grid")
_RAZAVI = "Razavi et al. 2019, arXiv:1906.00446"


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    register(
        ModelSpec(
            name="vq_vae_2",
            other_names=("vqvae2", "hierarchicalvqvae"),
            base="vanilla",
            summary="VQ-VAE-2: codes on two levels, the lower one given the upper one",
            paper=_RAZAVI,
            tags=(*_CODES, "codebook", "hierarchy", "convolutional"),
            parts={
                "network": "resnet",
                "bottleneck": "hierarchical_vq",
                "sampler": "autoregressive",
            },
            loss="vq",
            input_spec=InputSpec(ndims=(1, 2, 3), min_size=8),
        )
    )


@hookimpl
def register_bottlenecks(register: Callable[[BottleneckSpec], None]) -> None:
    for name, target, options, summary, paper, tags, other_names in (
        (
            "rvq",
            "residual:ResidualBottleneck",
            "RVQOptions",
            "A grid of sums of codes, each of which quantizes what the others left, uniform prior",
            "Zeghidour et al. 2021, arXiv:2107.03312; Lee et al. 2022, arXiv:2203.01941",
            (*_CODES, "codebook"),
            ("residualvq", "rqvae", "rq", "soundstream"),
        ),
        (
            "pq",
            "product:ProductBottleneck",
            "PQOptions",
            "A grid of codes for groups of channels, a codebook for each, uniform prior",
            "Jégou et al. 2011, doi:10.1109/TPAMI.2010.57",
            (*_CODES, "codebook"),
            ("productquantizer", "groupedvq", "multiheadvq"),
        ),
        (
            "lfq",
            "binary:LookupFreeBottleneck",
            "LFQOptions",
            "A grid of channels that are quantized to their signs, uniform prior",
            "Yu et al. 2023, arXiv:2310.05737",
            _CODES,
            ("lookupfreequantizer", "magvit", "magvit2"),
        ),
        (
            "bsq",
            "binary:SphericalBottleneck",
            "BSQOptions",
            "A grid of unit vectors that are quantized to their signs, uniform prior",
            "Zhao et al. 2024, arXiv:2406.07548",
            _CODES,
            ("binarysphericalquantizer",),
        ),
        (
            "simvq",
            "simvq:LinearCodebookBottleneck",
            "SimVQOptions",
            "A grid of codes of a frozen codebook behind a trained linear map, uniform prior",
            "Zhu et al. 2024, arXiv:2411.02038",
            (*_CODES, "codebook"),
            ("simplevq", "linearvq"),
        ),
        (
            "ibq",
            "ibq:IndexBottleneck",
            "IBQOptions",
            "A grid of codes of a codebook that is trained whole in each step, uniform prior",
            "Shi et al. 2024, arXiv:2412.02692",
            (*_CODES, "codebook"),
            ("indexbackpropagation",),
        ),
        (
            "multi_scale",
            "scales:MultiScaleBottleneck",
            "MultiScaleOptions",
            "A pyramid of grids of codes, the coarsest first, uniform prior",
            "Tian et al. 2024, arXiv:2404.02905",
            (*_CODES, "codebook"),
            ("var", "msvq", "multiscalevq"),
        ),
        (
            "hierarchical_vq",
            "hierarchical:HierarchicalBottleneck",
            "HierarchicalVQOptions",
            "Codes on levels of falling size, each given those above it, uniform prior",
            _RAZAVI,
            (*_CODES, "codebook", "hierarchy"),
            ("twolevelvq", "vqvae2", "hvq"),
        ),
        (
            "soft_vq",
            "soft:SoftBottleneck",
            "SoftVQOptions",
            "A grid of softmax-weighted means of codes: continuous latents",
            "Chen et al. 2024, arXiv:2412.10958",
            ("deterministic", "grid", "codebook"),
            ("softvqvae", "softquantizer"),
        ),
    ):
        register(
            BottleneckSpec(
                name=name,
                other_names=other_names,
                target=f"vaezoo_quantizers.{target}",
                options=f"vaezoo_quantizers.options:{options}",
                summary=summary,
                paper=paper,
                tags=tags,
                requires=("grid",),
            )
        )
