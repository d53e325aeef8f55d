"""Registration of the metrics, and of the command `classifier`. This module imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from vaezoo import CommandSpec, MetricSpec, hookimpl

_KYNKAANNIEMI = "Kynkäänniemi et al. 2019, arXiv:1904.06991, equation 2"

_metric = partial(
    MetricSpec,
    target="vaezoo_fidelity.metrics:Features",
    group="samples",
    direction="higher",
    requires=("images", "bounded"),
    comparable_keys=("data", "examples", "network"),
    cost="as many generated images as real ones, 10,000 at most; once, a classifier is trained",
)

METRICS = (
    _metric(
        name="fid",
        summary="Fréchet distance between the features of generated and of real images",
        formula="|μ − μ̂|² + tr(Σ + Σ̂ − 2 (Σ Σ̂)^½)",
        paper="Heusel et al. 2017, arXiv:1706.08500, equation 6",
        direction="lower",
    ),
    _metric(
        name="kid",
        summary="Kernel distance between the same features: unbiased, about 0 if they are alike",
        formula="MMD² with k(x, y) = (x·y / d + 1)³, 100 subsets of 1,000",
        paper="Binkowski et al. 2018, arXiv:1801.01401, section 4",
        direction="lower",
    ),
    _metric(
        name="precision",
        summary="Fraction of generated images near to real ones",
        formula="P(x̂ within the ball of some x to its 3rd nearest neighbour)",
        paper=_KYNKAANNIEMI,
    ),
    _metric(
        name="recall",
        summary="Fraction of real images near to generated ones",
        formula="P(x within the ball of some x̂ to its 3rd nearest neighbour)",
        paper=_KYNKAANNIEMI,
    ),
    _metric(
        name="rfid",
        target="vaezoo_fidelity.reconstructions:ReconstructionFeatures",
        group="reconstructions",
        summary="Fréchet distance between the features of reconstructions and of their originals",
        formula="fid, of reconstructions in place of generated images",
        paper="Heusel et al. 2017, arXiv:1706.08500, equation 6",
        direction="lower",
        cost="at most 10,000 images; once, a classifier is trained",
    ),
    _metric(
        name="ifid",
        target="vaezoo_fidelity.reconstructions:InterpolatedFeatures",
        summary="fid of images decoded halfway between latents of real images: whether a second "
        "model on the latents can make good images",
        formula="fid of decode(slerp(z, nearest other z, ½)), z the mode of q(z|x)",
        paper="Xu et al. 2026, arXiv:2603.05630",
        direction="lower",
        requires=("images", "bounded", "continuous"),
        cost="at most 10,000 images, and their distances; once, a classifier is trained",
    ),
)


@hookimpl
def register_metrics(register: Callable[[MetricSpec], None]) -> None:
    for spec in METRICS:
        register(spec)


@hookimpl
def register_commands(register: Callable[[CommandSpec], None]) -> None:
    register(
        CommandSpec(
            name="classifier",
            target="vaezoo_fidelity.command:command",
            summary="Train a classifier, whose features compare images.",
        )
    )
