"""The plugin's entries. No torch and no pydantic here: `vaezoo list` works without them."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import CommandSpec, InputSpec, LikelihoodSpec, ModelSpec, NetworkSpec, hookimpl

_PAPER = "Rombach et al. 2022, arXiv:2112.10752"
_CHEN = "Chen et al. 2024, arXiv:2410.10733"
_ESSER = "Esser et al. 2021, arXiv:2012.09841"


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    register(
        ModelSpec(
            name="autoencoder_kl",
            other_names=("klvae", "ldmvae", "autoencoderkl", "sdvae", "ldm", "latentdiffusion"),
            base="vanilla",
            parts={"network": "ldm", "bottleneck": "gaussian", "likelihood": "laplace_linear"},
            part_options={
                "bottleneck": {
                    "latent_grid": True,
                    "latent_dim": 4,
                    "logvar_range": (-30.0, 20.0),  # as in its published code
                }
            },
            part_requires={"network": ("grid",)},
            loss_options={"beta": 1e-6},
            train_options={"lr": 3e-4},
            summary="The autoencoder of latent diffusion: Gaussian latents on a grid, a small KL",
            paper=_PAPER,
            tags=("elbo", "importance", "convolutional", "gaussian"),
            input_spec=InputSpec(min_size=8),
        )
    )
    register(
        ModelSpec(
            name="vqgan",
            other_names=("vqmodel", "tamingtransformers", "taming", "ldmvq"),
            base="vanilla",
            parts={
                "network": "ldm",
                "bottleneck": "vq",
                "likelihood": "laplace_linear",
                "sampler": "autoregressive",
            },
            part_options={
                "network": {"hidden": (32, 64, 64, 128)},
                "bottleneck": {"codes": 1024, "code_dim": 32},
            },
            part_requires={"network": ("grid",)},
            loss="vq",
            train_options={"lr": 3e-4},
            summary="The tokenizer VQGAN: codes on a grid, in the network of latent diffusion",
            paper=f"{_ESSER}; {_PAPER}",
            tags=("elbo", "discrete", "deterministic", "grid", "codebook", "convolutional"),
            input_spec=InputSpec(min_size=8),
        )
    )
    register(
        ModelSpec(
            name="dc_ae",
            other_names=("dcae", "autoencoderdc", "deepcompressionautoencoder"),
            base="vanilla",
            parts={
                "network": "dc_ae",
                "bottleneck": "point",
                "likelihood": "laplace_linear",
                "sampler": "flow_matching",
            },
            part_options={"bottleneck": {"latent_grid": True, "latent_dim": 32}},
            part_requires={"network": ("grid",)},
            loss="reconstruction",
            train_options={"lr": 3e-4},
            summary="The deep compression autoencoder: points on a coarse grid, without noise",
            paper=_CHEN,
            tags=("deterministic", "convolutional"),
            input_spec=InputSpec(min_size=8),
        )
    )


@hookimpl
def register_networks(register: Callable[[NetworkSpec], None]) -> None:
    register(
        NetworkSpec(
            name="ldm",
            other_names=("autoencoderkl", "latentdiffusion", "unetencoder"),
            target="vaezoo_tokenizers.network:LDMNetwork",
            options="vaezoo_tokenizers.options:LDMOptions",
            summary="Residual blocks with GroupNorm and SiLU, attention at the lowest level",
            paper=f"{_PAPER}; {_ESSER}",
            tags=("convolutional", "grid", "attention"),
        )
    )
    register(
        NetworkSpec(
            name="dc_ae",
            other_names=("dcae", "autoencoderdc", "efficientvit"),
            target="vaezoo_tokenizers.network:DCAENetwork",
            options="vaezoo_tokenizers.options:DCAEOptions",
            summary="Shortcuts from space to channels, linear attention at the lower levels",
            paper=_CHEN,
            tags=("convolutional", "grid", "attention"),
        )
    )


@hookimpl
def register_likelihoods(register: Callable[[LikelihoodSpec], None]) -> None:
    for name, target, summary in (
        (
            "laplace_linear",
            "LaplaceLinearLikelihood",
            "Absolute errors of a decoder without tanh, as in latent diffusion",
        ),
        (
            "gaussian_linear",
            "GaussianLinearLikelihood",
            "Squared errors of a decoder without tanh",
        ),
    ):
        register(
            LikelihoodSpec(
                name=name,
                target=f"vaezoo_tokenizers.likelihoods:{target}",
                options="vaezoo_tokenizers.options:LinearOptions",
                summary=summary,
                paper=_PAPER if name == "laplace_linear" else "",
                domains=("binary", "unit"),
            )
        )


@hookimpl
def register_commands(register: Callable[[CommandSpec], None]) -> None:
    register(
        CommandSpec(
            name="tile",
            target="vaezoo_tokenizers.command:command",
            summary="Encode, decode or reconstruct a large image in tiles.",
        )
    )
