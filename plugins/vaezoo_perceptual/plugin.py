"""Registration of the loss `perceptual_gan`, and of perceptual metrics. No torch here."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import LossSpec, MetricSpec, hookimpl


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


@hookimpl
def register_metrics(register: Callable[[MetricSpec], None]) -> None:
    for name, target, summary, formula, extra in (
        (
            "lpips",
            "LPIPSMetric",
            "Perceptual distance of reconstructions by VGG16 with the heads of LPIPS 0.1",
            "Σ_l mean_hw Σ_c w_lc (f̂_lhwc(x) − f̂_lhwc(x̂))², f̂ of unit length",
            "perceptual",
        ),
        (
            "classifier_distance",
            "ClassifierDistanceMetric",
            "Perceptual distance of reconstructions by a classifier of the data, without heads",
            "mean_l mean_hw Σ_c (f̂_lhwc(x) − f̂_lhwc(x̂))², f̂ of unit length",
            "",
        ),
    ):
        register(
            MetricSpec(
                name=name,
                target=f"vaezoo_perceptual.metrics:{target}",
                group="reconstructions",
                summary=summary,
                formula=formula,
                paper="Zhang et al. 2018, arXiv:1801.03924, equation 1",
                direction="lower",
                requires=("images", "bounded"),
                comparable_keys=("data", "network"),
                extra=extra,
                cost="two passes of the network an example",
            )
        )
