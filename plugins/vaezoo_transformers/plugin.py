"""Registration of the network `vit` and of the models that are made with it. No torch here."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import InputSpec, ModelSpec, NetworkSpec, hookimpl

_VIT = "Dosovitskiy et al. 2020, arXiv:2010.11929"
_TITOK = "Yu et al. 2024, arXiv:2406.07550"


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    register(
        ModelSpec(
            name="vit_vae",
            other_names=("vitvae", "transformervae", "vitautoencoder", "vitkl"),
            base="vanilla",
            parts={"network": "vit", "bottleneck": "gaussian", "likelihood": "laplace_linear"},
            part_options={"bottleneck": {"latent_grid": True, "latent_dim": 16}},
            part_requires={"network": ("grid",)},
            loss_options={"beta": 1e-6},
            summary="A transformer with Gaussian latents on the grid of patches, a small KL",
            paper=f"{_VIT}; Rombach et al. 2022, arXiv:2112.10752",
            tags=("elbo", "importance", "transformer", "gaussian"),
            input_spec=InputSpec(min_size=8),
        )
    )
    register(
        ModelSpec(
            name="titok",
            other_names=("titokvq", "tokenizer1d", "1dtokenizer", "tatitok"),
            base="vanilla",
            parts={"network": "vit", "bottleneck": "vq", "sampler": "autoregressive"},
            part_options={
                "network": {"latent_tokens": 16},
                "bottleneck": {"code_dim": 12, "cosine": True},
            },
            part_requires={"network": ("grid",)},
            loss="vq",
            summary="An image as a short sequence of codes, those of latent tokens beside patches",
            paper=_TITOK,
            tags=("elbo", "discrete", "deterministic", "grid", "codebook", "transformer"),
            input_spec=InputSpec(min_size=8),
        )
    )


@hookimpl
def register_networks(register: Callable[[NetworkSpec], None]) -> None:
    register(
        NetworkSpec(
            name="vit",
            other_names=("transformer", "visiontransformer", "vitencoder"),
            target="vaezoo_transformers.network:ViTNetwork",
            options="vaezoo_transformers.options:ViTOptions",
            summary="A transformer over patches; its latents on their grid, or on latent tokens",
            paper=f"{_VIT}; {_TITOK}",
            tags=("grid", "attention"),
        )
    )
