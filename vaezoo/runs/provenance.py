"""Find again what a run was made with. Imports no torch, and runs no file that a run names."""

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
"""Characters of a name in a record: that of a plugin may be a path."""


def load_components(folder: RunFolder, config: Sections) -> Components:
    """The model, loss and data set of a run whose config file says `config`.

    RunError when one of them is not here, with what to do. A file that has another content than
    when the run was made costs a line on stderr.
    """
    record = read_json(folder.metadata)
    made_by = {kind: _MadeBy.read(record.get(kind)) for kind in ("model", "loss", "data")}
    try:
        components = resolve_components(None, None, None, config)
    except UnknownNameError as error:
        for kind, source in made_by.items():
            # Not among the names that are near it.
            if source.name and repr(source.name) in str(error).partition("; did you mean")[0]:
                raise RunError(
                    f"{folder.path} was made with the {kind} {source.name!r} of plugin "
                    f"{source.plugin!r}, which is not here: if you trust it, "
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
            _tell_once(f"{plugin.name} has changed since {folder.path} was made")
    return components


@dataclass(frozen=True)
class _MadeBy:
    """What a run's record says of where a model, loss or data set came from: words, no facts."""

    name: str = ""
    plugin: str = ""
    distribution: str = ""
    version: str = ""

    @classmethod
    def read(cls, said: object) -> _MadeBy:
        """As far as it is text that fits into a line."""
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
            f"name it again, and it is run: vaezoo --plugin {shlex.quote(self.plugin)} ..., in "
            f"Python vaezoo.load_plugin({self.plugin!r})"
        )


@functools.cache
def _tell_once(line: str) -> None:
    print(f"vaezoo: {line}", file=sys.stderr)
