"""Weights in the format of diffusers: one file or several with an index, safetensors only."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vaezoo.checkpoint.format import load_weights
from vaezoo.errors import RunError, quoted
from vaezoo.io import read_json

from .names import STEM, WEIGHTS

_INDEX = re.compile(rf"{STEM}\.safetensors\.index(\.[\w-]+)?\.json")
_SINGLE = re.compile(rf"{STEM}(\.[\w-]+)?\.safetensors")
_SHARD = re.compile(r"[\w.-]+\.safetensors")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_COUNTS = ".num_batches_tracked"
"""The one kind of whole numbers: the steps of a batch norm."""

_OLD_ATTENTION = re.compile(r"(.*attentions\.\d+\.)(query|key|value|proj_attn)(\.\w+)")
_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""The names of layers of attention before version 0.15 of diffusers, and since."""


def find_weights(folder: Path) -> Path:
    """The file with the weights, or the index of several. RunError if there is none, or no one.

    The one of float32 is taken before a variant, as `diffusion_pytorch_model.fp16.safetensors`.
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise RunError(f"cannot read {folder}: {error.strerror or error}") from None
    found = [name for name in names if _INDEX.fullmatch(name) or _SINGLE.fullmatch(name)]
    plain = [name for name in found if name in (WEIGHTS, f"{WEIGHTS}.index.json")]
    chosen = plain or found
    if len(chosen) > 1:
        raise RunError(f"{folder} has weights in {' and in '.join(chosen)}: leave one of them")
    if chosen:
        return folder / chosen[0]
    if pickles := [name for name in names if Path(name).suffix in _PICKLES]:
        raise RunError(
            f"{folder / pickles[0]} is a pickle, and reading one can run any code: save the model "
            "anew with save_pretrained(DIR, safe_serialization=True)"
        )
    raise RunError(f"{folder} has no {WEIGHTS}")


def read_weights(path: Path) -> tuple[dict[str, Tensor], list[Path]]:
    """The tensors of what `find_weights` found, by name, and the files that were read.

    RunError for files that are missing, damaged or not as the index says.
    """
    if path.suffix == ".safetensors":
        files = [path]
        tensors = load_weights(path)
    else:
        shards = _read_index(path)
        files = [path]
        tensors = {}
        for name in sorted({*shards.values()}):
            files.append(path.with_name(name))
            found = load_weights(files[-1])
            if wrong := [key for key in found if shards.get(key) != name]:
                raise RunError(f"{files[-1]} holds {quoted(wrong[0])}, which {path.name} denies")
            tensors |= found
        if missing := shards.keys() - tensors.keys():
            raise RunError(f"{path} names {quoted(min(missing))}, which no file holds")
    for name, tensor in tensors.items():
        counts = tensor.dtype == torch.int64 and name.endswith(_COUNTS)
        if tensor.dtype not in _DTYPES and not counts:
            kinds = ", ".join(str(dtype).removeprefix("torch.") for dtype in _DTYPES)
            raise RunError(f"{path}: {quoted(name)} is {tensor.dtype}, not one of {kinds}")
        if not tensor.isfinite().all():
            raise RunError(f"{path} is damaged: {quoted(name)} has values that are not finite")
    return {_newer(name): tensor for name, tensor in tensors.items()}, files


def _read_index(path: Path) -> dict[str, str]:
    """The file of each tensor. Files are of the same folder: other paths are refused."""
    shards = read_json(path).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise RunError(f"{path} is damaged: it has no weight_map")
    for file in shards.values():
        if not isinstance(file, str) or not _SHARD.fullmatch(file):
            raise RunError(f"{path} names {quoted(file)}, which is no file of this folder")
    return shards


def _newer(name: str) -> str:
    match = _OLD_ATTENTION.fullmatch(name)
    return name if match is None else f"{match[1]}{_ATTENTION[match[2]]}{match[3]}"


def to_own(tensors: Mapping[str, Tensor], renamed: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors by the names that they have in a run. renamed: beginnings, theirs to ours."""
    return _rename(tensors, renamed)


def to_theirs(tensors: Mapping[str, Tensor], renamed: Mapping[str, str]) -> dict[str, Tensor]:
    """The inverse of `to_own`."""
    return _rename(tensors, {own: their for their, own in renamed.items()})


def _rename(tensors: Mapping[str, Tensor], renamed: Mapping[str, str]) -> dict[str, Tensor]:
    found = {}
    for name, tensor in tensors.items():
        first = next((before for before in renamed if name.startswith(before)), "")
        found[renamed.get(first, "") + name.removeprefix(first)] = tensor
    return found


def dtype_of(tensors: Mapping[str, Tensor]) -> str:
    """The dtype of all tensors but counts, as "float16"; "mixed" if they have several."""
    kinds = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    found = {str(dtype).removeprefix("torch.") for dtype in kinds}
    return found.pop() if len(found) == 1 else "mixed"
