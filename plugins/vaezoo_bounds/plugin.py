"""The plugin's entries: vanilla with tighter bounds as losses. No torch here."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import LossSpec, ModelSpec, hookimpl

_BURDA = "Burda et al. 2015, arXiv:1509.00519; Tucker et al. 2018, arXiv:1810.04152"
_RAINFORTH = "Rainforth et al. 2018, arXiv:1802.04537"


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    for name, summary, loss_summary, paper in (
        (
            "iwae",
            "Importance-weighted autoencoder: a tighter bound from several samples",
            "The negative importance-weighted bound of K samples",
            _BURDA,
        ),
        (
            "miwae",
            "Multiply importance-weighted autoencoder: the mean of several tighter bounds",
            "The mean of M importance-weighted bounds of K samples each",
            _RAINFORTH,
        ),
    ):
        loss = LossSpec(
            name=name,
            target=f"vaezoo_bounds.importance:{name.upper()}Loss",
            options=f"vaezoo_bounds.options:{name.upper()}Options",
            summary=loss_summary,
            paper=paper,
            tags=("importance", "bound"),
            requires=("importance",),
        )
        register(ModelSpec(name=name, base="vanilla", summary=summary, paper=paper, loss=loss))
