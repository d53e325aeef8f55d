"""Registration of the command `export`. No torch here."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import CommandSpec, hookimpl


@hookimpl
def register_commands(register: Callable[[CommandSpec], None]) -> None:
    register(
        CommandSpec(
            name="export",
            target="vaezoo_export.command:command",
            summary="Write a run's model as ONNX, torch.export or safetensors.",
        )
    )
