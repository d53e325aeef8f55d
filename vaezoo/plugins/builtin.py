"""The plugin of the core: a loss and data sets."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo.plugins.hookspecs import hookimpl
from vaezoo.plugins.specs import DatasetSpec, LossSpec


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


@hookimpl
def register_datasets(register: Callable[[DatasetSpec], None]) -> None:
    register(
        DatasetSpec(
            name="folder",
            target="vaezoo.data.folder:FolderDataset",
            options="vaezoo.data.options:FolderOptions",
            summary="Any tree of images, a folder a class or flat: give --root",
            tags=("images", "files", "folder"),
        )
    )
    register(
        DatasetSpec(
            name="npz",
            target="vaezoo.data.arrays:NpzDataset",
            options="vaezoo.data.options:NpzOptions",
            summary="Arrays of images or vectors in an .npz file: give --root",
            tags=("images", "vectors", "files", ".npz"),
        )
    )
