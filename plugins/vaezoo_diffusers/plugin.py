"""Registration of the command `import` and of the export format `diffusers`. No torch here."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import CommandSpec, hookimpl
from vaezoo_export.formats import ExportFormat

from .names import CONFIG, WEIGHTS


@hookimpl
def register_commands(register: Callable[[CommandSpec], None]) -> None:
    register(
        CommandSpec(
            name="import",
            target="vaezoo_diffusers.command:command",
            summary="Make a run of an autoencoder in the format of diffusers.",
        )
    )


@hookimpl(optionalhook=True)
def register_export_formats(register: Callable[[ExportFormat], None]) -> None:
    register(
        ExportFormat(
            name="diffusers",
            ending="",
            target="vaezoo_diffusers.export:export_folder",
            files=(CONFIG, WEIGHTS),
        )
    )
