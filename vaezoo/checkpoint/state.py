"""The schema of a checkpoint's state.json, and the checks before training resumes from it.

Checksums show that the files are as they were written. They do not show who wrote them.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr, ValidationError
from pydantic.dataclasses import dataclass

from vaezoo.checkpoint.format import Checkpoint
from vaezoo.errors import RunError

FORMAT_VERSION = 2
"""Changes with the names and meanings in a checkpoint. Other versions cannot be resumed."""

_ADAM_STATE = ("step", "exp_avg", "exp_avg_sq")
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
    parameters = {key.rpartition(".")[0] for key in keys}
    if keys != {f"{parameter}.{name}" for parameter in parameters for name in _ADAM_STATE}:
        return "the state of an optimizer is not complete"
    return ""
