"""Registration of the loss `perceptual_gan`. No torch here."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import LossSpec, hookimpl


@hookimpl
def register_losses(register: Callable[[LossSpec], None]) -> None:
    register(
        LossSpec(
            name="perceptual_gan",
            other_names=("vqgan", "lpips", "patchgan", "lpipswithdiscriminator"),
            target="vaezoo_perceptual.loss:PerceptualGANLoss",
            options="vaezoo_perceptual.options:PerceptualGANOptions",
            summary="Reconstruction, rate, perceptual distance and a patch discriminator",
            paper="Esser et al. 2021, arXiv:2012.09841; Rombach et al. 2022, arXiv:2112.10752",
            tags=("perceptual", "adversarial"),
        )
    )
