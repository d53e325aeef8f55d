"""What the plugin brings: objectives, and for each a model that is vanilla's but for it.

No torch here: names and help are read without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from vaezoo import LossSpec, ModelSpec, hookimpl

_CHEN = "Chen et al. 2018, arXiv:1802.04942"
_KUMAR = "Kumar et al. 2017, arXiv:1711.00848"
_ZHAO = "Zhao et al. 2017, arXiv:1706.02262"
_TOLSTIKHIN = "Tolstikhin et al. 2017, arXiv:1711.01558"
_BURGESS = "Burgess et al. 2018, arXiv:1804.03599"
_RYBKIN = "Rybkin et al. 2020, arXiv:2006.13202"

_FEW_LATENTS = {"latent_dim": 10}
"""As in the papers on disentangling: a latent for each factor, and a few to spare."""
_BATCH_STATISTICS = {"batch_size": 64}
"""Sixteen, which sprites have otherwise, say little about a distribution of latents."""


@hookimpl
def register_losses(register: Callable[[LossSpec], None]) -> None:
    register(
        LossSpec(
            name="beta_tc",
            target="vaezoo_objectives.beta_tc:BetaTcLoss",
            options="vaezoo_objectives.options:BetaTcOptions",
            summary="The KL in three parts, each with a weight: information, TC, dimension-wise KL",
            paper=_CHEN,
            tags=("elbo", "disentanglement"),
            requires=("elbo",),
        )
    )
    register(
        LossSpec(
            name="dip_vae",
            target="vaezoo_objectives.dip_vae:DipVaeLoss",
            options="vaezoo_objectives.options:DipVaeOptions",
            summary="The ELBO and a penalty on the covariance of the aggregate posterior",
            paper=_KUMAR,
            tags=("elbo", "disentanglement"),
            requires=("elbo",),
        )
    )
    register(
        LossSpec(
            name="info_vae",
            target="vaezoo_objectives.info_vae:InfoVaeLoss",
            options="vaezoo_objectives.options:InfoVaeOptions",
            summary="Less of the KL, and the MMD between aggregate posterior and prior",
            paper=_ZHAO,
            tags=("elbo", "mmd"),
            requires=("elbo",),
        )
    )
    register(
        LossSpec(
            name="wae_mmd",
            target="vaezoo_objectives.wae_mmd:WaeMmdLoss",
            options="vaezoo_objectives.options:WaeMmdOptions",
            summary="Reconstruction and the MMD between aggregate posterior and prior: no KL",
            paper=_TOLSTIKHIN,
            tags=("mmd",),
        )
    )
    register(
        LossSpec(
            name="capacity",
            target="vaezoo_objectives.capacity:CapacityLoss",
            options="vaezoo_objectives.options:CapacityOptions",
            summary="Distortion at a rate that is led up to a capacity in nats",
            paper=_BURGESS,
            tags=("elbo", "disentanglement", "schedule"),
            requires=("elbo",),
        )
    )
    register(
        LossSpec(
            name="sigma_vae",
            target="vaezoo_objectives.sigma_vae:SigmaVaeLoss",
            summary="The ELBO at the Gaussian likelihood's best scale, found in closed form",
            paper=_RYBKIN,
            tags=("elbo",),
            requires=("elbo",),
        )
    )


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    register(
        ModelSpec(
            name="beta_tc",
            base="vanilla",
            loss="beta_tc",
            summary="beta-TCVAE: independent latents by a weight on their total correlation",
            paper=_CHEN,
            model_options=_FEW_LATENTS,
            train_options=_BATCH_STATISTICS,
        )
    )
    register(
        ModelSpec(
            name="dip_vae",
            base="vanilla",
            loss="dip_vae",
            summary="DIP-VAE I and II: uncorrelated latents by a penalty on their covariance",
            paper=_KUMAR,
            model_options=_FEW_LATENTS,
            train_options=_BATCH_STATISTICS,
        )
    )
    register(
        ModelSpec(
            name="info_vae",
            base="vanilla",
            loss="info_vae",
            summary="InfoVAE (MMD-VAE): latents that match the prior together, not one by one",
            paper=_ZHAO,
            train_options=_BATCH_STATISTICS,
        )
    )
    register(
        ModelSpec(
            name="wae_mmd",
            base="vanilla",
            loss="wae_mmd",
            summary="Wasserstein autoencoder with an MMD on its latents",
            paper=_TOLSTIKHIN,
            # Its encoder is not trained to be the decoder's posterior: its ELBO would say little.
            tags=("convolutional", "gaussian"),
            # The distortion of this scale is the squared error itself, and a constant. Latents that
            # the data does not fill would be empty places of the prior: they are few.
            model_options={"likelihood": "gaussian", "scale": math.sqrt(0.5), "latent_dim": 16},
            train_options=_BATCH_STATISTICS,
        )
    )
    register(
        ModelSpec(
            name="capacity",
            base="vanilla",
            loss="capacity",
            summary="beta-VAE whose rate is led up to a capacity in nats during training",
            paper=_BURGESS,
            model_options=_FEW_LATENTS,
        )
    )
    register(
        ModelSpec(
            name="sigma_vae",
            base="vanilla",
            loss="sigma_vae",
            summary="VAE with the best noise scale in closed form: nothing to balance by hand",
            paper=_RYBKIN,
            model_options={"likelihood": "gaussian_learned"},
        )
    )
