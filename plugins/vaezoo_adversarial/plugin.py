"""What the plugin brings. No torch here: names and help are read without it."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import InputSpec, LossSpec, ModelSpec, hookimpl


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    register(
        ModelSpec(
            name="factor_vae",
            base="vanilla",
            summary="Independent latents: total correlation, by a critic's density ratio",
            paper="Kim & Mnih 2018, arXiv:1802.05983",
            tags=("elbo", "importance", "convolutional", "gaussian", "adversarial"),
            loss="factor_vae",
        )
    )
    register(
        ModelSpec(
            name="aae",
            base="autoencoder",
            summary="Adversarial autoencoder: a critic draws the latents to the prior",
            paper="Makhzani et al. 2015, arXiv:1511.05644",
            tags=("deterministic", "convolutional", "adversarial"),
            loss="aae",
        )
    )
    register(
        ModelSpec(
            name="vae_gan",
            base="vanilla",
            summary="Similarity at a layer of a critic that images must fool",
            paper="Larsen et al. 2015, arXiv:1512.09300",
            # No elbo: nothing but the mean of the pixels' likelihood takes part in training.
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
            target="vaezoo_adversarial.factor:FactorLoss",
            options="vaezoo_adversarial.options:FactorOptions",
            summary="The negative ELBO and gamma · total correlation; two phases",
            paper="Kim & Mnih 2018, arXiv:1802.05983",
            tags=("elbo", "adversarial"),
            requires=("elbo",),
        )
    )
    register(
        LossSpec(
            name="aae",
            target="vaezoo_adversarial.aae:AaeLoss",
            options="vaezoo_adversarial.options:AaeOptions",
            summary="The distortion, and latents that a critic takes for the prior's; three phases",
            paper="Makhzani et al. 2015, arXiv:1511.05644",
            tags=("adversarial",),
        )
    )
    register(
        LossSpec(
            name="vae_gan",
            target="vaezoo_adversarial.vae_gan:VaeGanLoss",
            options="vaezoo_adversarial.options:VaeGanOptions",
            summary="Rate and distortion at a layer of a critic, which is fooled; three phases",
            paper="Larsen et al. 2015, arXiv:1512.09300",
            tags=("adversarial",),
            requires=("gaussian",),
        )
    )
