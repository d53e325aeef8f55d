"""Checkpoints: everything that training needs to go on, as safetensors and JSON."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vaezoo.errors import RunError
from vaezoo.files import cannot_write, open_regular, read_json, write_atomically

_PREFIX = "step-"


def save_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors: to a temporary name, then renamed."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    write_atomically(path, lambda temporary: _save_file(plain, temporary))


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read safetensors; RunError when the file is missing or damaged."""
    try:
        open_regular(path).close()
        return load_file(path)
    except FileNotFoundError:
        raise RunError(f"{path} is missing") from None
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}") from None
    except (SafetensorError, ValueError, KeyError) as error:  # KeyError: a type torch lacks
        raise RunError(f"{path} is damaged: {error}") from None


def load_into(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Give a module the weights of a file; RunError in one line when they do not fit."""
    own = module.state_dict()
    missing, foreign = own.keys() - state.keys(), state.keys() - own.keys()
    if missing or foreign:
        name = min(missing or foreign)
        raise RunError(
            f"{path} does not fit the model: {name} is {'missing' if missing else 'unknown'}"
        )
    for name, tensor in state.items():
        if tensor.shape != own[name].shape:
            raise RunError(
                f"{path} does not fit the model: {name} is {tuple(tensor.shape)}, "
                f"not {tuple(own[name].shape)}"
            )
        if tensor.is_complex() != own[name].is_complex() or tensor.isnan().any():
            raise RunError(f"{path} is damaged: {name} holds what is no number")
    module.load_state_dict(dict(state))


def optimizer_tensors(optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """The state of the optimizers by `phase.parameter.name`; their settings are in the config."""
    return {
        f"{phase}.{parameter}.{name}": tensor
        for phase, optimizer in enumerate(optimizers)
        for parameter, state in optimizer.state_dict()["state"].items()
        for name, tensor in state.items()
    }


def load_optimizers(
    optimizers: list[torch.optim.Optimizer], tensors: Mapping[str, Tensor], path: Path
) -> None:
    """Put the state back that `optimizer_tensors` took."""
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    try:
        for key, tensor in tensors.items():
            phase, parameter, name = key.split(".")
            number = int(parameter)
            like = optimizers[int(phase)].param_groups[0]["params"][number]
            if tensor.shape == like.shape:
                # Files know no layout; fused kernels walk moments and weights in step.
                tensor = torch.empty_like(like).copy_(tensor)
            states[int(phase)].setdefault(number, {})[name] = tensor
        for optimizer, state in zip(optimizers, states, strict=True):
            settings = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state, "param_groups": settings})
    except (ValueError, IndexError, KeyError) as error:
        raise RunError(f"{path} does not fit the training: {error}") from None


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of torch's generators."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
) -> None:
    """Write a checkpoint as a whole, then remove the ones before it.

    tensors: by file. state: JSON-able. RunError when it cannot be written; the one before stays.
    """
    temporary = folder / f".{_PREFIX}{step:09d}.{os.getpid()}.tmp"
    final = folder / f"{_PREFIX}{step:09d}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, part in tensors.items():
            save_weights(temporary / f"{name}.safetensors", part)
        (temporary / "state.json").write_text(json.dumps(dict(state)), encoding="utf-8")
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
    except OSError as error:
        raise cannot_write(final, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for other in _checkpoints(folder):
        if other != final:
            shutil.rmtree(other, ignore_errors=True)


def load_checkpoint(folder: Path) -> tuple[Path, dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The newest checkpoint: where it is, its tensors by file, its state."""
    found = _checkpoints(folder)
    if not found:
        raise RunError(f"{folder} holds no checkpoint to go on from")
    newest = found[-1]
    state = read_json(newest / "state.json")
    tensors = {path.stem: load_weights(path) for path in sorted(newest.glob("*.safetensors"))}
    return newest, tensors, state


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if path.is_dir())


def _save_file(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(tensors, path)
    except SafetensorError as error:  # how safetensors tells of a full disk
        raise OSError(getattr(error, "errno", None), str(error)) from error
