"""Registration of the adversarial models with their losses. No torch here."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import InputSpec, LossSpec, ModelSpec, hookimpl

_KIM = "Kim & Mnih 2018, arXiv:1802.05983"
_MAKHZANI = "Makhzani et al. 2015, arXiv:1511.05644"
_LARSEN = "Larsen et al. 2015, arXiv:1512.09300"


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    register(
        ModelSpec(
            name="factor_vae",
            base="vanilla",
            summary="Independent latents: a discriminator estimates the total correlation",
            paper=_KIM,
            tags=("elbo", "importance", "convolutional", "gaussian", "adversarial"),
            loss=LossSpec(
                name="factor_vae",
                target="vaezoo_adversarial.factor_vae:FactorVAELoss",
                options="vaezoo_adversarial.options:FactorVAEOptions",
                summary="The negative ELBO + gamma · total correlation; two phases",
                paper=_KIM,
                tags=("elbo", "adversarial"),
                requires=("elbo",),
            ),
        )
    )
    register(
        ModelSpec(
            name="aae",
            other_names=("adversarialae",),
            base="autoencoder",
            summary="Adversarial autoencoder: a discriminator matches the latents to the prior",
            paper=_MAKHZANI,
            tags=("deterministic", "convolutional", "adversarial"),
            loss=LossSpec(
                name="aae",
                target="vaezoo_adversarial.aae:AAELoss",
                options="vaezoo_adversarial.options:AAEOptions",
                summary="The distortion, and a GAN loss on the latents; three phases",
                paper=_MAKHZANI,
                tags=("adversarial",),
            ),
        )
    )
    register(
        ModelSpec(
            name="vae_gan",
            other_names=("gan",),
            base="vanilla",
            summary="VAE-GAN: reconstruction measured on features of a GAN's discriminator",
            paper=_LARSEN,
            # No elbo: training uses only the mean of the pixels' likelihood.
            tags=("convolutional", "gaussian", "adversarial"),
            loss=LossSpec(
                name="vae_gan",
                target="vaezoo_adversarial.vae_gan:VAEGANLoss",
                options="vaezoo_adversarial.options:VAEGANOptions",
                summary="The rate, a distortion of features, and a GAN loss; three phases",
                paper=_LARSEN,
                tags=("adversarial",),
                requires=("gaussian",),
            ),
            parts={"likelihood": "gaussian"},
            part_options={"bottleneck": {"latent_dim": 32}},
            input_spec=InputSpec(min_size=8),
        )
    )
