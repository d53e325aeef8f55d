"""Find again what a run was made with. Imports no torch, and runs no file that a run names."""

from __future__ import annotations

import functools
import shlex
import sys
from collections.abc import Mapping

from vaezoo.config import Choice, Sections, choose
from vaezoo.errors import RunError, UnknownNameError
from vaezoo.files import read_json
from vaezoo.registry import registry
from vaezoo.runfolder import RunFolder


def choose_again(folder: RunFolder, recipe: Sections) -> Choice:
    """The model, loss and data set of a run whose configuration is `recipe`.

    RunError when one of them is not here, with what to do. A file that has another content than
    when the run was made costs a line on stderr.
    """
    record = read_json(folder.record)
    try:
        choice = choose(None, None, None, recipe)
    except UnknownNameError as error:
        for kind in ("model", "loss", "data"):
            made_by = record.get(kind, {})
            if f"{made_by.get('name')!r}" in str(error):
                raise RunError(
                    f"{folder.path} was made with the {kind} {made_by['name']!r} of plugin "
                    f"{made_by['plugin']!r}, which is not here: {_how_to_get(made_by)}"
                ) from None
        raise
    for kind, spec in (("model", choice.model), ("loss", choice.loss), ("data", choice.data)):
        plugin = registry().plugin(spec)
        if not plugin.is_installed and plugin.version != record.get(kind, {}).get("version"):
            _tell_once(f"{plugin.name} has changed since {folder.path} was made")
    return choice


def _how_to_get(made_by: Mapping[str, str]) -> str:
    if made_by["distribution"]:
        return f"install {made_by['distribution']} {made_by['version']}"
    plugin = made_by["plugin"]
    return (
        f"name it again, and it is run: vaezoo --plugin {shlex.quote(plugin)} ..., in Python "
        f"vaezoo.load_plugin({plugin!r})"
    )


@functools.cache
def _tell_once(line: str) -> None:
    print(f"vaezoo: {line}", file=sys.stderr)
