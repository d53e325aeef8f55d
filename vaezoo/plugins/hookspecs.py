"""The hooks of a plugin, one for each kind: `register_models`, `register_networks` and so on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pluggy

from vaezoo.plugins.specs import PLURALS, SPECS, Spec

hookspec = pluggy.HookspecMarker("vaezoo")
hookimpl = pluggy.HookimplMarker("vaezoo")

HOOKS: Mapping[str, type[Spec]] = {
    f"register_{plural}": SPECS[kind] for plural, kind in PLURALS.items()
}
"""Each hook, with the class of the specs that it registers.

It is called once, with a function `register`, to be called with a spec for each thing that the
plugin brings.
"""


def _hook() -> Callable[..., None]:
    @hookspec
    def hook(register: Callable[[Spec], None]) -> None:
        """Call `register` with each spec of this kind."""

    return hook


specifications = type("specifications", (), {name: staticmethod(_hook()) for name in HOOKS})
"""What a plugin manager of pluggy is given."""
