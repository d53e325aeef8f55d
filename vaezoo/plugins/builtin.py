"""The plugin of the core: the loss that every model can use."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo.plugins.hookspecs import hookimpl
from vaezoo.plugins.specs import LossSpec


@hookimpl
def register_losses(register: Callable[[LossSpec], None]) -> None:
    register(
        LossSpec(
            name="elbo",
            target="vaezoo.losses.elbo:ELBOLoss",
            options="vaezoo.losses.options:ELBOOptions",
            summary="The negative ELBO with a weight on the KL: distortion + beta · rate",
            paper="Kingma & Welling 2013, arXiv:1312.6114; beta: Higgins et al. 2017",
            tags=("elbo", "beta"),
            requires=("elbo",),
        )
    )
