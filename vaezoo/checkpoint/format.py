"""The checkpoint format: safetensors files, a JSON state and checksums; no pickle."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr, ValidationError
from pydantic.dataclasses import dataclass
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vaezoo.distributed import is_sharded
from vaezoo.distributed.fsdp import distribute_like
from vaezoo.errors import RunError
from vaezoo.io import atomic_write, cannot_write, fsync_dir, open_regular, read_json, write_text

_PREFIX = "step-"
_STATE = "state.json"
_SUMS = "SHA256SUMS"


class Checkpoint(NamedTuple):
    """A loaded checkpoint. tensors: by file and name. state: the content of state.json."""

    path: Path
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]

    @property
    def step(self) -> int:
        return step_of(self.path)


FORMAT_VERSION = 2
"""Changes with the names and meanings in a checkpoint. Other versions cannot be resumed."""

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

Count = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
Seconds = Annotated[float, Field(strict=True, ge=0)]
Score = Annotated[float, Field(strict=True)]


@dataclass(config=_STRICT)
class Progress:
    """How many steps, images and seconds of training are done, and how many steps were skipped."""

    step: Count = 0
    images: Count = 0
    train_seconds: Seconds = 0.0
    wall_seconds: Seconds = 0.0
    skipped: Count = 0


class BestScore(BaseModel):
    """The best validation score so far, and for how many epochs it has been the best."""

    model_config = _STRICT

    score: Score
    epochs_since: Count


class CheckpointState(BaseModel):
    """What a checkpoint stores beside tensors.

    best: of the weights in `best.safetensors`; None if there are none. score: the validation score
    of these weights; None if they were not validated. validation_due: an epoch is over, but its
    validation is not. metric_names: the columns of `metric_buffer.safetensors`. metrics_bytes: the
    size of metrics.jsonl.
    """

    model_config = _STRICT

    version: Count = FORMAT_VERSION
    progress: Progress
    best: BestScore | None
    score: Score | None
    validation_due: StrictBool
    metric_names: list[StrictStr]
    metrics_bytes: Count = 0


def save_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a safetensors file atomically."""
    atomic_write(path, lambda temporary: write_tensors(temporary, state))


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file. RunError if it is missing or damaged."""
    with _read_errors(path):
        open_regular(path).close()
        try:
            return load_file(path)
        except (SafetensorError, ValueError, KeyError) as error:  # KeyError: a type torch lacks
            raise RunError(f"{path} is damaged: {error}") from None


def load_into(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load the weights of a file into a module. RunError if they do not fit."""
    own = module.state_dict()
    check_fit(own, state, path)
    module.load_state_dict({name: distribute_like(t, own[name]) for name, t in state.items()})


def check_fit(own: Mapping[str, Tensor], state: Mapping[str, Tensor], path: Path) -> None:
    """RunError unless the tensors of a file have the names and shapes of `own`, and no NaN."""
    problem = f"{path} does not fit the model:"
    if missing := own.keys() - state.keys():
        raise RunError(f"{problem} {min(missing)} is missing")
    if foreign := state.keys() - own.keys():
        raise RunError(f"{problem} {min(foreign)} is unknown")
    for name, tensor in state.items():
        shape, expected = tuple(tensor.shape), tuple(own[name].shape)
        if shape != expected:
            raise RunError(f"{problem} {name} is {shape}, not {expected}")
        if tensor.is_complex() != own[name].is_complex() or tensor.isnan().any():
            raise RunError(f"{path} is damaged: {name} has values that are not numbers")


def optimizer_tensors(optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """The state of the optimizers by `phase.parameter.name`. Their options are in the config."""
    return {
        f"{phase}.{parameter}.{name}": tensor
        for phase, optimizer in enumerate(optimizers)
        for parameter, state in optimizer.state_dict()["state"].items()
        for name, tensor in state.items()
    }


def load_optimizers(
    optimizers: list[torch.optim.Optimizer], tensors: Mapping[str, Tensor], path: Path
) -> None:
    """Load the state that `optimizer_tensors` returned. RunError if it does not fit."""
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    try:
        for key, tensor in tensors.items():
            phase, parameter, name = key.split(".")
            groups = optimizers[int(phase)].param_groups
            like = [p for group in groups for p in group["params"]][int(parameter)]
            if name != "step":
                if tensor.shape != like.shape:
                    raise ValueError(f"{key} is {tuple(tensor.shape)}, not {tuple(like.shape)}")
                if is_sharded(like):
                    tensor = distribute_like(tensor, like)
                else:  # fused kernels need the memory format of the weights
                    tensor = torch.empty_like(like).copy_(tensor)
            states[int(phase)].setdefault(int(parameter), {})[name] = tensor
        for optimizer, state in zip(optimizers, states, strict=True):
            names = getattr(optimizer, "state_names", None)
            if names and any(kept.keys() != names for kept in state.values()):
                raise ValueError("the state of an optimizer is not complete")
            settings = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state, "param_groups": settings})
    except (ValueError, IndexError, KeyError) as error:
        raise RunError(f"{path} does not fit the training: {error}") from None


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of torch's random generators."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def save_checkpoint(
    folder: Path,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    *,
    keep: int,
) -> None:
    """Write a checkpoint atomically, then remove old ones.

    tensors: by file and name. state: for JSON; its "score" is the validation score, or None. keep:
    how many of the newest stay, beside the best by score. RunError if it cannot be written; then
    the older ones stay.
    """
    final = folder / f"{_PREFIX}{step:09d}"
    temporary = folder / f".{final.name}.{os.getpid()}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        sums = {
            f"{name}.safetensors": write_tensors(temporary / f"{name}.safetensors", part)
            for name, part in tensors.items()
        }
        write_text(temporary / _STATE, json.dumps(dict(state), allow_nan=False))
        sums[_STATE] = file_digest(temporary / _STATE)
        write_text(temporary / _SUMS, _listing(sums))
        if final.exists():
            remove_checkpoint(final)  # a damaged one: training reached this step again
        temporary.rename(final)
        fsync_dir(folder)
    except OSError as error:
        raise cannot_write(final, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _prune(folder, step, keep)


def load_checkpoint(
    folder: Path, fits: Callable[[Checkpoint], object], note: Callable[[str], None]
) -> Checkpoint | None:
    """The newest valid checkpoint; None if there is no checkpoint.

    fits: raises RunError for one that training cannot resume from. note: is called with one line
    for each that is not valid. RunError if there are checkpoints, but no valid one.
    """
    damaged: list[str] = []
    for path in reversed(list_checkpoints(folder)):
        try:
            checkpoint = read_checkpoint(path)
            fits(checkpoint)
        except RunError as error:
            damaged.append(str(error))
            continue
        older = f"training resumes from the older checkpoint of step {checkpoint.step:,}"
        for reason in damaged:
            note(f"{reason}: {older}")
        return checkpoint
    if damaged:
        raise RunError(f"training cannot resume from any checkpoint in {folder}: {damaged[0]}")
    return None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint. RunError names the first file that does not match its checksum."""
    verify(path)
    tensors = {file.stem: load_weights(file) for file in sorted(path.glob("*.safetensors"))}
    return Checkpoint(path, tensors, read_json(path / _STATE))


def verify(path: Path) -> None:
    """RunError unless all files of a checkpoint match their checksums."""
    sums = _read_sums(path / _SUMS)
    there = {file.name for file in path.iterdir()} - {_SUMS}
    for name in sorted(there | sums.keys() | {_STATE}):
        if name not in there:
            raise RunError(f"{path / name} is missing")
        if sums.get(name) != file_digest(path / name):
            raise RunError(f"{path / name} is damaged: its content differs from what was written")


def parse_state(checkpoint: Checkpoint, metrics_bytes: int) -> CheckpointState:
    """The state of a checkpoint. RunError, which names the checkpoint, if training cannot resume.

    metrics_bytes: the size of metrics.jsonl now. Whether tensors fit the model is checked when they
    are loaded.
    """
    path, tensors = checkpoint.path, checkpoint.tensors
    version = checkpoint.state.get("version", 1)
    if version != FORMAT_VERSION:
        raise RunError(
            f"{path} has checkpoint format {version!s:.20}, and this vaezoo resumes format "
            f"{FORMAT_VERSION} only: resume it with the version of vaezoo in run.json, "
            "or train again"
        )
    try:
        state = CheckpointState.model_validate(checkpoint.state)
        problem = _find_missing(state, tensors)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        problem = f"{'.'.join(map(str, first['loc']))} in state.json: {first['msg']}"
    if problem:
        raise RunError(f"{path} does not fit the training: {problem}")
    if state.metrics_bytes > metrics_bytes:
        raise RunError(f"metrics.jsonl is shorter than {path} says")
    return state


def _find_missing(state: CheckpointState, tensors: dict[str, dict[str, Any]]) -> str:
    """Which tensors are missing, in words; empty if none is."""
    if "model" not in tensors or "cpu" not in tensors.get("random", {}):
        return "it has no weights or no state of the random generators"
    if state.best and "best" not in tensors:
        return "it has no best weights"
    values = tensors.get("metric_buffer", {}).get("values")
    if state.metric_names and (
        values is None or values.ndim != 2 or values.shape[1] != len(state.metric_names)
    ):
        return "it has no values for its metric names"
    keys = tensors.get("optimizers", {}).keys()
    parameters, names = ({key.rpartition(".")[i] for key in keys} for i in (0, 2))
    if keys != {f"{parameter}.{name}" for parameter in parameters for name in names}:
        return "the state of an optimizer is not complete"
    return ""


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, in the order of their steps."""
    found = (path for path in folder.glob(f"{_PREFIX}*") if path.is_dir())
    return sorted((path for path in found if path.name[5:].isdecimal()), key=step_of)


def step_of(path: Path) -> int:
    return int(path.name.removeprefix(_PREFIX))


def _listing(sums: Mapping[str, str]) -> str:
    return "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))


def _read_sums(path: Path) -> dict[str, str]:
    with _read_errors(path):
        content = path.read_bytes()
    try:
        lines = [line.split("  ", 1) for line in content.decode().splitlines()]
        sums = {name: digest for digest, name in lines}
    except ValueError:
        raise RunError(f"{path} is damaged: it is not a list of checksums") from None
    if content != _listing(sums).encode():
        raise RunError(f"{path} is damaged: its content differs from what was written")
    return sums


def file_digest(path: Path) -> str:
    """The sha256 of a file, in hexadecimal. RunError if it cannot be read."""
    with _read_errors(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the body into a RunError that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise RunError(f"{path} is missing") from None
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}") from None


def _prune(folder: Path, step: int, keep: int) -> None:
    """Remove all checkpoints but the newest up to `step` and the best of them.

    A later one than `step` is damaged: training went back to an older one.
    """
    found = list_checkpoints(folder)
    until_now = [path for path in found if step_of(path) <= step]
    best = max(until_now, key=_score, default=None)
    for path in found:
        if path not in until_now[-keep:] and not (path == best and _score(path) > -math.inf):
            remove_checkpoint(path)


def _score(path: Path) -> float:
    """The validation score of a checkpoint; -inf if it has none."""
    try:
        score = read_json(path / _STATE).get("score")
    except RunError:
        return -math.inf
    return float(score) if isinstance(score, int | float) else -math.inf


def remove_checkpoint(path: Path) -> None:
    """Rename and remove: a checkpoint that is half removed must not look like a damaged one."""
    gone = path.with_name(f".{path.name}.gone.tmp")
    shutil.rmtree(gone, ignore_errors=True)
    path.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_CHUNK = 1 << 24
"""Bytes of one write: between two writes Python can run signal handlers and other threads."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write a safetensors file, sync it to disk and return its SHA-256 in hexadecimal.

    safetensors.torch.save_file can do neither in the same pass, and needs all tensors contiguous
    at once. OSError if the disk is full; RunError for a dtype that safetensors does not have.
    """
    # The largest elements first, so that each tensor is aligned to its element size.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    digest = hashlib.sha256()
    with path.open("wb", buffering=0) as file:

        def write(data: memoryview) -> None:
            while data:
                done = file.write(data[:_CHUNK])
                digest.update(data[:done])
                data = data[done:]

        write(memoryview(_header(names, tensors)))
        for name in names:
            # One tensor at a time, because `contiguous` copies those in another memory format.
            values = tensors[name].detach().cpu().contiguous()
            if values.numel():
                write(values.reshape(-1).view(torch.uint8).numpy().data)
        os.fsync(file.fileno())
    return digest.hexdigest()


def _header(names: list[str], tensors: Mapping[str, Tensor]) -> bytes:
    """The header of a safetensors file: its length and its JSON, padded to 8 bytes."""
    described, begin = {}, 0
    for name in names:
        tensor = tensors[name]
        if tensor.dtype not in _NAMES:
            raise RunError(f"{name} is {tensor.dtype}, a dtype that safetensors does not have")
        offsets = [begin, begin + tensor.nbytes]
        shape, begin = list(tensor.shape), offsets[1]
        described[name] = {"dtype": _NAMES[tensor.dtype], "shape": shape, "data_offsets": offsets}
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
