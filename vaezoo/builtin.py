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


@hookimpl
def register_datasets(register: Callable[[DatasetSpec], None]) -> None:
    register(
        DatasetSpec(
            name="sprites",
            target="vaezoo.data.sprites:SpritesDataset",
            options="vaezoo.data.options:SpritesOptions",
            summary="Three shapes in every size, turn and place: drawn here, factors known",
            paper="after dSprites, Matthey et al. 2017",
            tags=("images", "binary", "factors", "embedded"),
            # Many small steps: what learns most in three minutes on two cores.
            train_options={"steps": 1000, "batch_size": 16, "lr": 3e-3, "schedule": "linear"},
        )
    )
    register(
        DatasetSpec(
            name="folder",
            target="vaezoo.data.folder:FolderDataset",
            options="vaezoo.data.options:FolderOptions",
            summary="Any tree of images, a folder a class or flat: give --root",
            tags=("images", "files"),
        )
    )
