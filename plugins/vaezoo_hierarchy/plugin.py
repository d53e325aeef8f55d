"""What the plugin brings, and its options. No torch here: names and help are read without it."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import ModelSpec, hookimpl


@hookimpl
def register_models(register: Callable[[ModelSpec], None]) -> None:
    """Nothing yet."""
