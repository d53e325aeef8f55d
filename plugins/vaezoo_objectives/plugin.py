"""The plugin's entries: models that are vanilla with another loss. No torch here."""

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

_FEW_LATENTS = {"bottleneck": {"latent_dim": 10}}
"""As in the papers on disentangling: one latent for each factor, and a few more."""
_LARGE_BATCH = {"batch_size": 64}
"""The losses use statistics of a batch: 16 examples, the default of sprites, are too few."""


def _loss(name: str, classes: str, summary: str, paper: str, *tags: str) -> LossSpec:
    """A loss with the ELBO. classes: the module, and what its class and its options begin with."""
    _, prefix = classes.split(":")
    return LossSpec(
        name=name,
        target=f"vaezoo_objectives.{classes}Loss",
        options=f"vaezoo_objectives.options:{prefix}Options",
        summary=summary,
        paper=paper,
        tags=("elbo", *tags),
        requires=("elbo",),
    )


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    register(
        ModelSpec(
            name="beta_tc",
            other_names=("tcvae", "btcvae", "betatcvae"),
            base="vanilla",
            summary="beta-TCVAE: independent latents by a weight on their total correlation",
            paper=_CHEN,
            part_options=_FEW_LATENTS,
            train_options=_LARGE_BATCH,
            loss=_loss(
                "beta_tc",
                "beta_tc:BetaTC",
                "KL in three weighted parts: information, total correlation, dimensions",
                _CHEN,
                "disentanglement",
            ),
        )
    )
    register(
        ModelSpec(
            name="dip_vae",
            base="vanilla",
            summary="DIP-VAE I and II: uncorrelated latents by a penalty on their covariance",
            paper=_KUMAR,
            part_options=_FEW_LATENTS,
            train_options=_LARGE_BATCH,
            loss=_loss(
                "dip_vae",
                "dip_vae:DIPVAE",
                "The ELBO and a penalty on the covariance of the aggregate posterior",
                _KUMAR,
                "disentanglement",
            ),
        )
    )
    register(
        ModelSpec(
            name="info_vae",
            other_names=("mmdvae",),
            base="vanilla",
            summary="InfoVAE (MMD-VAE): an aggregate posterior that matches the prior",
            paper=_ZHAO,
            train_options=_LARGE_BATCH,
            loss=_loss(
                "info_vae",
                "mmd:InfoVAE",
                "Less of the KL, and the MMD between aggregate posterior and prior",
                _ZHAO,
                "mmd",
            ),
        )
    )
    register(
        ModelSpec(
            name="wae_mmd",
            other_names=("wae",),
            base="vanilla",
            summary="Wasserstein autoencoder with an MMD on its latents",
            paper=_TOLSTIKHIN,
            # No "elbo": the encoder is not trained to be the posterior, the bound would be loose.
            tags=("convolutional", "gaussian"),
            # At this scale the distortion is the squared error plus a constant. A small latent, so
            # that no region of the prior is without data.
            parts={"likelihood": "gaussian"},
            part_options={
                "likelihood": {"scale": math.sqrt(0.5)},
                "bottleneck": {"latent_dim": 16},
            },
            train_options=_LARGE_BATCH,
            loss=LossSpec(
                name="wae_mmd",
                target="vaezoo_objectives.mmd:WAEMMDLoss",
                options="vaezoo_objectives.options:WAEMMDOptions",
                summary="Reconstruction and the MMD between aggregate posterior and prior: no KL",
                paper=_TOLSTIKHIN,
                tags=("mmd",),
            ),
        )
    )
    register(
        ModelSpec(
            name="capacity",
            other_names=("annealedvae", "betavaeb", "controlvae"),
            base="vanilla",
            summary="beta-VAE whose rate follows a capacity in nats that rises during training",
            paper=_BURGESS,
            part_options=_FEW_LATENTS,
            loss=_loss(
                "capacity",
                "capacity:Capacity",
                "Distortion, and the distance of the rate from a rising capacity in nats",
                _BURGESS,
                "disentanglement",
                "schedule",
            ),
        )
    )
    register(
        ModelSpec(
            name="sigma_vae",
            base="vanilla",
            summary="VAE with the optimal noise scale in closed form: no weight to tune",
            paper=_RYBKIN,
            parts={"likelihood": "gaussian_learned"},
            loss=LossSpec(
                name="sigma_vae",
                target="vaezoo_objectives.sigma_vae:SigmaVAELoss",
                summary="The ELBO at the optimal scale of the Gaussian likelihood, in closed form",
                paper=_RYBKIN,
                tags=("elbo",),
                requires=("elbo",),
            ),
        )
    )
