"""Registration of the adversarial models and losses. No torch here."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import InputSpec, LossSpec, ModelSpec, hookimpl


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    register(
        ModelSpec(
            name="factor_vae",
            base="vanilla",
            summary="Independent latents: a discriminator estimates the total correlation",
            paper="Kim & Mnih 2018, arXiv:1802.05983",
            tags=("elbo", "importance", "convolutional", "gaussian", "adversarial"),
            loss="factor_vae",
        )
    )
    register(
        ModelSpec(
            name="aae",
            base="autoencoder",
            summary="Adversarial autoencoder: a discriminator matches the latents to the prior",
            paper="Makhzani et al. 2015, arXiv:1511.05644",
            tags=("deterministic", "convolutional", "adversarial"),
            loss="aae",
        )
    )
    register(
        ModelSpec(
            name="vae_gan",
            base="vanilla",
            summary="VAE-GAN: reconstruction measured on features of a GAN's discriminator",
            paper="Larsen et al. 2015, arXiv:1512.09300",
            # No elbo: training uses only the mean of the pixels' likelihood.
            tags=("convolutional", "gaussian", "adversarial"),
            loss="vae_gan",
            model_options={"likelihood": "gaussian", "latent_dim": 32},
            input_spec=InputSpec(min_size=8),
        )
    )


@hookimpl
def register_losses(register: Callable[[LossSpec], None]) -> None:
    register(
        LossSpec(
            name="factor_vae",
            target="vaezoo_adversarial.factor_vae:FactorVAELoss",
            options="vaezoo_adversarial.options:FactorVAEOptions",
            summary="The negative ELBO + gamma · total correlation; two phases",
            paper="Kim & Mnih 2018, arXiv:1802.05983",
            tags=("elbo", "adversarial"),
            requires=("elbo",),
        )
    )
    register(
        LossSpec(
            name="aae",
            target="vaezoo_adversarial.aae:AAELoss",
            options="vaezoo_adversarial.options:AAEOptions",
            summary="The distortion, and a GAN loss on the latents; three phases",
            paper="Makhzani et al. 2015, arXiv:1511.05644",
            tags=("adversarial",),
        )
    )
    register(
        LossSpec(
            name="vae_gan",
            target="vaezoo_adversarial.vae_gan:VAEGANLoss",
            options="vaezoo_adversarial.options:VAEGANOptions",
            summary="The rate, a distortion of features, and a GAN loss; three phases",
            paper="Larsen et al. 2015, arXiv:1512.09300",
            tags=("adversarial",),
            requires=("gaussian",),
        )
    )
