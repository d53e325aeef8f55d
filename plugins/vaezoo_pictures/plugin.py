"""Registration of the commands that draw a picture from a run. No torch here."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import CommandSpec, hookimpl

_SUMMARIES = {
    "sample": "Draw new images from a run's prior.",
    "reconstruct": "Encode image files with a run's model and decode them again.",
    "traverse": "Draw what each latent dimension of a run changes.",
    "interpolate": "Draw the interpolation between two images.",
}


@hookimpl
def register_commands(register: Callable[[CommandSpec], None]) -> None:
    for name, summary in _SUMMARIES.items():
        target = f"vaezoo_pictures.commands:{name}_command"
        register(CommandSpec(name=name, target=target, summary=summary))
