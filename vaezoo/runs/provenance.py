"""Find the model, loss and data set of a run. Files that a run folder names are never run."""

from __future__ import annotations

import functools
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields

from vaezoo.checkpoint.folder import RunFolder
from vaezoo.config import Components, Sections, resolve_components
from vaezoo.errors import RunError, UnknownNameError, printable
from vaezoo.io import read_json
from vaezoo.plugins.registry import registry

_LONGEST = 300
"""Characters of a name in run.json; the name of a plugin may be a path."""


def load_components(folder: RunFolder, config: Sections) -> Components:
    """The components of a run with this config.

    RunError says what to install if one is missing. If a plugin file changed since the run was
    made, one line is printed on stderr.
    """
    record = read_json(folder.metadata)
    made_by = {kind: _MadeBy.read(record.get(kind)) for kind in ("model", "loss", "data")}
    try:
        components = resolve_components(None, None, None, config)
    except UnknownNameError as error:
        for kind, source in made_by.items():
            # Look in the message without its suggestions.
            if source.name and repr(source.name) in str(error).partition("; did you mean")[0]:
                raise RunError(
                    f"{folder.path} was made with the {kind} {source.name!r} of plugin "
                    f"{source.plugin!r}, which is not installed: if you trust it, "
                    f"{source.install_hint()}"
                ) from None
        raise RunError(f"{folder.config}: {error}") from None
    for kind, spec in (
        ("model", components.model),
        ("loss", components.loss),
        ("data", components.data),
    ):
        plugin = registry().plugin(spec)
        if not plugin.is_installed and plugin.version != made_by[kind].version:
            _warn_once(f"{plugin.name} has changed since {folder.path} was made")
    return components


@dataclass(frozen=True)
class _MadeBy:
    """What run.json says about the origin of a component. It is not verified."""

    name: str = ""
    plugin: str = ""
    distribution: str = ""
    version: str = ""

    @classmethod
    def read(cls, said: object) -> _MadeBy:
        """Read the fields that are short text; others stay empty."""
        if not isinstance(said, Mapping):
            return cls()
        words = {field.name: said.get(field.name) for field in fields(cls)}
        return cls(
            **{
                name: printable(word)
                for name, word in words.items()
                if isinstance(word, str) and len(word) <= _LONGEST
            }
        )

    def install_hint(self) -> str:
        if self.distribution:
            return f"install {self.distribution} {self.version}"
        return (
            f"name it again, which runs it: vaezoo --plugin {shlex.quote(self.plugin)} ..., in "
            f"Python vaezoo.load_plugin({self.plugin!r})"
        )


@functools.cache
def _warn_once(line: str) -> None:
    print(f"vaezoo: {line}", file=sys.stderr)
