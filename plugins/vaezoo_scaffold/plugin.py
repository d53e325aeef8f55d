"""Registration of the command `new`. No torch here."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import CommandSpec, hookimpl


@hookimpl
def register_commands(register: Callable[[CommandSpec], None]) -> None:
    register(
        CommandSpec(
            name="new",
            target="vaezoo_scaffold.command:command",
            summary="Write a plugin package to start from.",
        )
    )
