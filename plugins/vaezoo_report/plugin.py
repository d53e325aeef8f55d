"""Registration of the command `report`. No torch here."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import CommandSpec, hookimpl


@hookimpl
def register_commands(register: Callable[[CommandSpec], None]) -> None:
    register(
        CommandSpec(
            name="report",
            target="vaezoo_report.command:command",
            summary="Write one HTML page about runs.",
        )
    )
