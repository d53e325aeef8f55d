"""Registration of sprites."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import DatasetSpec, hookimpl


@hookimpl
def register_datasets(register: Callable[[DatasetSpec], None]) -> None:
    register(
        DatasetSpec(
            name="sprites",
            target="vaezoo_sprites.dataset:SpritesDataset",
            options="vaezoo_sprites.options:SpritesOptions",
            summary="Three shapes in every size, turn and place: drawn here, factors known",
            paper="after dSprites, Matthey et al. 2017",
            tags=("images", "binary", "factors", "embedded"),
            default=True,
            # Many small steps: what learns most in three minutes on two cores.
            train_options={
                "steps": 2000,
                "batch_size": 16,
                "lr": 3e-3,
                "adam_beta2": 0.95,
                "schedule": "linear",
            },
        )
    )
