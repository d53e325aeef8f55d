"""What the plugin brings. No torch here: names and help are read without it."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import LossSpec, ModelSpec, hookimpl

_BURDA = "Burda et al. 2015, arXiv:1509.00519; Tucker et al. 2018, arXiv:1810.04152"
_RAINFORTH = "Rainforth et al. 2018, arXiv:1802.04537"


@hookimpl
def register_losses(register: Callable[[LossSpec], None]) -> None:
    register(
        LossSpec(
            name="iwae",
            target="vaezoo_bounds.importance:IwaeLoss",
            options="vaezoo_bounds.options:IwaeOptions",
            summary="The negative importance-weighted bound: K draws under one logarithm",
            paper=_BURDA,
            tags=("importance", "bound"),
            requires=("importance",),
        )
    )
    register(
        LossSpec(
            name="miwae",
            target="vaezoo_bounds.importance:MiwaeLoss",
            options="vaezoo_bounds.options:MiwaeOptions",
            summary="The mean of M importance-weighted bounds of K draws each",
            paper=_RAINFORTH,
            tags=("importance", "bound"),
            requires=("importance",),
        )
    )


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    register(
        ModelSpec(
            name="iwae",
            base="vanilla",
            loss="iwae",
            summary="Importance-weighted autoencoder: a tighter bound from several draws",
            paper=_BURDA,
        )
    )
    register(
        ModelSpec(
            name="miwae",
            base="vanilla",
            loss="miwae",
            summary="Multiply importance-weighted autoencoder: the mean of several tighter bounds",
            paper=_RAINFORTH,
        )
    )
