"""Registration of the likelihoods. No torch here."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import LikelihoodSpec, hookimpl


@hookimpl
def register_likelihoods(register: Callable[[LikelihoodSpec], None]) -> None:
    register(
        LikelihoodSpec(
            name="auto",
            target="vaezoo_likelihoods.basic:by_domain",
            options="vaezoo_likelihoods.options:ScaleOptions",
            summary="By the data: bernoulli for binary values, else gaussian_learned",
            default=True,
        )
    )
    register(
        LikelihoodSpec(
            name="bernoulli",
            other_names=("bce", "binary", "crossentropy", "binarycrossentropy"),
            target="vaezoo_likelihoods.basic:bernoulli",
            summary="Each value is 0 or 1; on grey values the cross-entropy, not normalised",
            domains=("binary", "unit"),
        )
    )
    register(
        LikelihoodSpec(
            name="gaussian",
            other_names=("mse", "normal", "l2"),
            target="vaezoo_likelihoods.basic:gaussian",
            options="vaezoo_likelihoods.options:ScaleOptions",
            summary="Gaussian with a fixed scale: a weighted mean squared error",
        )
    )
    register(
        LikelihoodSpec(
            name="gaussian_learned",
            other_names=("learnednormal", "sigma", "optimalsigma"),
            target="vaezoo_likelihoods.basic:gaussian_learned",
            options="vaezoo_likelihoods.options:ScaleOptions",
            summary="Gaussian with one learned scale",
            paper="Rybkin et al. 2020, arXiv:2006.13202",
        )
    )
