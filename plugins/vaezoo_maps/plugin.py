"""Registration of the command `embed`. No torch here."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import CommandSpec, hookimpl


@hookimpl
def register_commands(register: Callable[[CommandSpec], None]) -> None:
    register(
        CommandSpec(
            name="embed",
            target="vaezoo_maps.command:command",
            summary="Draw a map of a run's latents.",
        )
    )
