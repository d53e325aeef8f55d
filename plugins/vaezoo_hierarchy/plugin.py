"""Registration of the ladder VAE. No torch here."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import InputSpec, ModelSpec, hookimpl


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    register(
        ModelSpec(
            name="ladder_vae",
            other_names=("lvae", "hvae", "hierarchicalvae"),
            target="vaezoo_hierarchy.ladder:LadderVAE",
            options="vaezoo_hierarchy.options:LadderOptions",
            summary="Ladder VAE: several levels of latents with top-down inference",
            paper="Sønderby et al. 2016, arXiv:1602.02282",
            tags=("elbo", "importance", "hierarchy"),
            parts={"network": "conv", "likelihood": "auto"},
            # Without warm-up the upper levels are not used, as the paper found.
            loss_options={"warmup": 0.1},
            input_spec=InputSpec(ndims=(0, 1, 2, 3), min_size=8),
        )
    )
