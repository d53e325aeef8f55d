"""Registration of the data sets of files: a tree of images, and arrays."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import DatasetSpec, hookimpl


@hookimpl
def register_datasets(register: Callable[[DatasetSpec], None]) -> None:
    register(
        DatasetSpec(
            name="folder",
            target="vaezoo_files.folder:FolderDataset",
            options="vaezoo_files.options:FolderOptions",
            summary="Any tree of images, a folder a class or flat: give --root",
            tags=("images", "files", "directory"),
        )
    )
    register(
        DatasetSpec(
            name="npz",
            target="vaezoo_files.npz:NpzDataset",
            options="vaezoo_files.options:NpzOptions",
            summary="Arrays of images or vectors in an .npz file: give --root",
            tags=("images", "vectors", "files", ".npz"),
        )
    )
