"""Registration of the commands that write results as data. No torch here."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import CommandSpec, hookimpl

_SUMMARIES = {
    "encode": "Write the latents of examples to a file.",
    "decode": "Decode the latents in a file.",
    "score": "Write scores of each example, and find the most unusual.",
}


@hookimpl
def register_commands(register: Callable[[CommandSpec], None]) -> None:
    for name, summary in _SUMMARIES.items():
        target = f"vaezoo_results.{name}:command"
        register(CommandSpec(name=name, target=target, summary=summary))
