"""Whether a checkpoint says what a run that goes on relies on: its sums may be a stranger's too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vaezoo.checkpoint.format import Checkpoint
from vaezoo.errors import RunError

_MOMENTS = {"step", "exp_avg", "exp_avg_sq"}
"""What Adam keeps of a parameter."""


def check_resumable(checkpoint: Checkpoint, metrics_bytes: int) -> None:
    """RunError, in one line that names the checkpoint, unless its parts are of the right form.

    metrics_bytes: how long metrics.jsonl is. Whether tensors fit the model is seen when they are
    put there.
    """
    state, tensors = checkpoint.state, checkpoint.tensors
    progress, best, names = state.get("progress"), state.get("best"), state.get("names")
    wrong = ""
    if not isinstance(progress, dict) or not {*_PROGRESS} <= {*progress}:
        wrong = "has no progress"
    elif not all(_PROGRESS.get(name, _is_count)(value) for name, value in progress.items()):
        wrong = "has a progress that is none"
    elif not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        wrong = "has no names of terms"
    elif names and ("window" not in tensors or not _has_columns(tensors["window"], len(names))):
        wrong = "has no values of its terms"
    elif not (best is None or _is_best(best)) or (best is not None and "best" not in tensors):
        wrong = "has best weights that are none"
    elif not (state.get("score") is None or _is_number(state["score"])):
        wrong = "has a score that is no number"
    elif not isinstance(state.get("validation_due"), bool):
        wrong = "does not tell whether validation is due"
    elif not _is_count(state.get("metrics_bytes")):
        wrong = "does not tell how long the metrics are"
    elif "model" not in tensors or "random" not in tensors or "cpu" not in tensors["random"]:
        wrong = "lacks weights or random numbers"
    elif not _are_moments(tensors.get("optimizers", {})):
        wrong = "has no whole state of the optimizer"
    if wrong:
        raise RunError(f"{checkpoint.path} {wrong}")
    if state["metrics_bytes"] > metrics_bytes:
        raise RunError(f"metrics.jsonl is shorter than {checkpoint.path} says")


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_number(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return type(value) is int and abs(value) < 2**63


def _is_duration(value: object) -> bool:
    return _is_number(value) and isinstance(value, int | float) and value >= 0


_PROGRESS = {
    "step": _is_count,
    "images": _is_count,
    "train_seconds": _is_duration,
    "wall_seconds": _is_duration,
}


def _is_best(value: object) -> bool:
    return (
        isinstance(value, dict)
        and {*value} == {"score", "epochs_since"}
        and _is_number(value["score"])
        and _is_count(value["epochs_since"])
    )


def _has_columns(window: Mapping[str, Any], count: int) -> bool:
    values = window.get("values")
    return values is not None and values.ndim == 2 and values.shape[1] == count


def _are_moments(tensors: Mapping[str, Any]) -> bool:
    """Whether each parameter that is named has all that Adam keeps of it."""
    found: dict[str, set[str]] = {}
    for key in tensors:
        parameter, _, name = key.rpartition(".")
        found.setdefault(parameter, set()).add(name)
    return all(names == _MOMENTS for names in found.values())
