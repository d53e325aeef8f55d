"""The plugin's entries: vanilla with tighter bounds as losses. No torch here."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import LossSpec, ModelSpec, hookimpl

_BURDA = "Burda et al. 2015, arXiv:1509.00519; Tucker et al. 2018, arXiv:1810.04152"
_RAINFORTH = "Rainforth et al. 2018, arXiv:1802.04537"


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    register(
        ModelSpec(
            name="iwae",
            base="vanilla",
            summary="Importance-weighted autoencoder: a tighter bound from several samples",
            paper=_BURDA,
            loss=LossSpec(
                name="iwae",
                target="vaezoo_bounds.importance:IWAELoss",
                options="vaezoo_bounds.options:IWAEOptions",
                summary="The negative importance-weighted bound of K samples",
                paper=_BURDA,
                tags=("importance", "bound"),
                requires=("importance",),
            ),
        )
    )
    register(
        ModelSpec(
            name="miwae",
            base="vanilla",
            summary="Multiply importance-weighted autoencoder: the mean of several tighter bounds",
            paper=_RAINFORTH,
            loss=LossSpec(
                name="miwae",
                target="vaezoo_bounds.importance:MIWAELoss",
                options="vaezoo_bounds.options:MIWAEOptions",
                summary="The mean of M importance-weighted bounds of K samples each",
                paper=_RAINFORTH,
                tags=("importance", "bound"),
                requires=("importance",),
            ),
        )
    )
