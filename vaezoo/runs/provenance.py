"""The model, loss and data set of a finished run. Imports no torch, and runs no file of the run."""

from __future__ import annotations

import functools
import shlex
import sys
from collections.abc import Mapping

from vaezoo.checkpoint.folder import RunFolder
from vaezoo.config import (
    SECTIONS,
    Components,
    MissingDataset,
    Sections,
    load_config,
    resolve_components,
    resolve_dataset,
)
from vaezoo.data.options import DataOptions
from vaezoo.errors import RunError, UnknownNameError, printable
from vaezoo.plugins.registry import registry

_MAX_LENGTH = 300
"""Characters of a value in run.json: a plugin's name may be a path."""


def load_components(folder: RunFolder, *, with_data: bool = False) -> tuple[Components, Sections]:
    """The model, loss and data set of a run, and the content of its config file.

    RunError if the folder has another format, is damaged, or needs a plugin that is not installed.
    If it is the plugin of the data, the run can still be used, unless with_data: a MissingDataset
    stands for it. Prints a warning if the file of a model, loss or data set has changed since the
    run was made.
    """
    metadata, config = folder.read_metadata(), load_config(folder.config)
    origins = {kind: _read_origin(metadata.get(kind)) for kind in SECTIONS if kind != "train"}
    missing = None
    try:
        resolve_dataset(None, config)
    except UnknownNameError as error:
        name, why = origins["data"]["name"], _explain(folder, {"data": origins["data"]}, error)
        if with_data or name != config.get("data", {}).get("name"):
            raise why from None
        moved = ", and give --root if its data moved" if "root" in config["data"] else ""
        missing = MissingDataset(name=name, why=f"{why}{moved}")
        known = {"name", *DataOptions.model_fields}
        config |= {"data": {k: v for k, v in config["data"].items() if k in known}}
    try:
        components = resolve_components({}, config, missing)
    except UnknownNameError as error:
        raise _explain(folder, origins, error) from None
    for section, spec in components.specs().items():
        if spec is missing:
            continue
        record = registry().plugin(spec)
        if not record.is_installed and record.version != origins[section]["version"]:
            _warn_once(f"{record.name} has changed since {folder.path} was made")
    return components, config


def _explain(
    folder: RunFolder, origins: Mapping[str, Mapping[str, str]], error: UnknownNameError
) -> RunError:
    """The error of a run whose plugin is not installed, which names the plugin."""
    # The names that are suggested as similar are not the missing one.
    message = str(error).partition("; did you mean")[0]
    for kind, origin in origins.items():
        if origin["name"] and repr(origin["name"]) in message:
            plugin = origin["plugin"]
            hint = (
                f"name it again to run it: vaezoo --plugin {shlex.quote(plugin)} ..., in "
                f"Python vaezoo.load_plugin({plugin!r})"
            )
            if origin["distribution"]:
                hint = f"install {origin['distribution']} {origin['version']}"
            return RunError(
                f"{folder.path} was made with the {kind} {origin['name']!r} of plugin "
                f"{plugin!r}, which is not installed: if you trust it, {hint}"
            )
    return RunError(f"{folder.config}: {error}")


def _read_origin(values: object) -> dict[str, str]:
    """A model's, loss's or data set's entry in run.json; "" for what is missing or no short text.

    The entry comes from a file that anyone can write: it is shown in messages only.
    """
    found = values if isinstance(values, Mapping) else {}
    origin = {key: found.get(key) for key in ("name", "plugin", "distribution", "version")}
    return {
        key: printable(value) if isinstance(value, str) and len(value) <= _MAX_LENGTH else ""
        for key, value in origin.items()
    }


@functools.cache
def _warn_once(message: str) -> None:
    print(f"vaezoo: {message}", file=sys.stderr)
