"""What the core itself brings, registered by the same door as everyone's: a loss and data sets."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo.hookspecs import hookimpl
from vaezoo.specs import DatasetSpec, LossSpec


@hookimpl
def register_losses(register: Callable[[LossSpec], None]) -> None:
    register(
        LossSpec(
            name="elbo",
            target="vaezoo.losses.elbo:ElboLoss",
            options="vaezoo.losses.options:ElboOptions",
            summary="The negative ELBO with a weight on the KL: distortion + beta · rate",
            paper="Kingma & Welling 2013, arXiv:1312.6114; beta: Higgins et al. 2017",
            tags=("elbo", "beta"),
            needs=("elbo",),
        )
    )
