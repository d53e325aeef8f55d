"""Start a new model with the weights of another run, or of a safetensors file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from vaezoo.checkpoint.folder import RunFolder
from vaezoo.checkpoint.format import file_digest, load_into, load_weights
from vaezoo.errors import OptionError, RunError, counted, printable, quoted
from vaezoo.models.base import BaseVAE

_SHOWN = 4
"""Tensors that a note names; run.json lists all."""

_NOT_CHOSEN = "not of init_parts"


def copy_weights(model: BaseVAE, source: Path, parts: Sequence[str] = ()) -> dict[str, Any]:
    """Copy the weights that fit into a new model, and return the record of it for run.json.

    source: a run folder, or a safetensors file with the names of the model's state. parts: the
    top-level submodules to copy; all of them if empty. A layer is copied as a whole or not at all,
    so that no bias and no count stays beside new weights. A sampler is never copied.

    OptionError for a part that the model lacks. RunError if the source cannot be read, or if
    nothing fits; then the model has not changed.
    """
    own = {n: t for n, t in model.state_dict().items() if not n.startswith("sampler.")}
    known = list(dict.fromkeys(name.partition(".")[0] for name in own))
    for part in parts:
        if part not in known:
            raise OptionError(
                f"--init-parts: this model has no part {quoted(part)}: it has {', '.join(known)}"
            )
    path = RunFolder.existing(source).weights if source.is_dir() else source
    found = load_weights(path)
    drawn = {name: _why_not(name, tensor, found, parts) for name, tensor in own.items()}
    first = {_layer_of(name): name for name, reason in reversed(drawn.items()) if reason}
    for name, reason in drawn.items():
        if not reason and _layer_of(name) in first:
            drawn[name] = f"of the layer of {first[_layer_of(name)]}"
    copied = [name for name, reason in drawn.items() if not reason]
    if not copied:
        name, reason = next(iter(drawn.items()))
        raise RunError(f"--init-from {source}: nothing in it fits this model: {name} is {reason}")
    for name in copied:
        if not found[name].isfinite().all():
            raise RunError(f"{path} is damaged: {name} has values that are not finite")
    for name in copied:
        own[name].copy_(found[name])
    return {
        "path": str(source),
        "sha256": file_digest(path),
        "parts": list(parts),
        "copied": copied,
        "drawn": {name: reason for name, reason in drawn.items() if reason},
        "unused": [printable(name) for name in found if name not in own],
    }


def restore_start(model: BaseVAE, folder: RunFolder) -> None:
    """Load the weights that a run with --init-from started with, before its first checkpoint."""
    if not folder.init.exists():
        raise RunError(f"{folder.path} has no checkpoint and no {folder.init.name}: train it again")
    load_into(model, load_weights(folder.init), folder.init)


def describe_copy(record: Mapping[str, Any] | None) -> list[str]:
    """Lines for the user: what was copied, what was drawn from the seed, what has no use here."""
    if record is None:
        return []
    lines = [f"{counted(len(record['copied']), 'tensor')} copied from {record['path']}"]
    drawn = [f"{n} ({why})" for n, why in record["drawn"].items() if why != _NOT_CHOSEN]
    for what, names in (("drawn from the seed", drawn), ("not used", record["unused"])):
        more = f" and {len(names) - _SHOWN} more, see run.json" if names[_SHOWN:] else ""
        if names:
            lines.append(f"{what}: {', '.join(names[:_SHOWN])}{more}")
    return lines


def _why_not(name: str, own: Tensor, found: Mapping[str, Tensor], parts: Sequence[str]) -> str:
    """Why a tensor of the model is not copied; "" if it is."""
    if parts and name.partition(".")[0] not in parts:
        return _NOT_CHOSEN
    if name not in found:
        return "not in the source"
    given = found[name]
    if given.shape != own.shape:
        return f"{list(own.shape)} here, {list(given.shape)} there"
    if (given.is_floating_point(), given.is_complex()) != (own.is_floating_point(), False):
        return f"{own.dtype} here, {given.dtype} there"
    return ""


def _layer_of(name: str) -> str:
    """The path of the layer that a tensor belongs to; a parametrization is part of its layer."""
    layer, parametrization, _ = name.partition(".parametrizations.")
    return layer if parametrization else name.rpartition(".")[0]
