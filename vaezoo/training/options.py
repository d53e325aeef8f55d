"""Options of training. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from vaezoo.options import Options


class TrainOptions(Options):
    epochs: int | None = Field(10, ge=1, le=10**9, description="passes over the training set")
    steps: int | None = Field(
        None, ge=1, le=10**12, description="training steps, instead of epochs"
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="stop after so many epochs without a better ELBO on held-out data (objective, "
        "where there is no ELBO), and keep the best weights; none: train to the end, keep the last",
    )
    batch_size: int = Field(
        64, ge=1, description="examples in a step, of all processes together where several share it"
    )
    lr: float = Field(1e-3, gt=0, description="Adam's learning rate")
    adam_beta2: float = Field(
        0.999,
        ge=0,
        lt=1,
        description="decay of Adam's squared gradients; lower follows a short run better",
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="how the learning rate goes down to 0 by the end, if it does"
    )
    grad_clip: float | None = Field(
        None, gt=0, description="largest norm of a gradient; longer ones are shortened to it"
    )
    device: str = Field(
        "auto", description="where to train: cpu, cuda, cuda:1, mps; auto: a GPU if there is one"
    )
    precision: Literal["auto", "fp32", "tf32", "bf16"] = Field(
        "auto",
        description="arithmetic of the networks; auto: tf32 on GPUs that have it, bf16 on "
        "processors with matrix instructions for it, else fp32",
    )
    compile: Literal["auto", "off", "on"] = Field(
        "auto",
        description="put the step through torch.compile, which takes up to minutes first; auto: on "
        "a GPU, for runs of 100,000 steps or more (it gained nothing on the CPUs we measured)",
    )
    graph: Literal["auto", "off", "on"] = Field(
        "auto",
        description="record the step as a CUDA graph and replay it; auto: on a GPU, and as usual "
        "where the model cannot be recorded",
    )
    shard: bool = Field(
        False,
        description="spread weights and optimizer state over the processes of a job, for a model "
        "that is too large for one device; slower where it is not",
    )
    deterministic: bool = Field(
        True, description="the same numbers each time on the same machine; off may be faster"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="seed of weights, noise and data order")
    log_every: int = Field(
        20, ge=1, le=1_000_000, description="steps between two lines of metrics.jsonl"
    )
    on_nonfinite: Literal["stop", "skip"] = Field(
        "stop",
        description="what a step with a gradient that is not finite does: stop the run, or be left "
        "out and counted, until there are too many",
    )
    checkpoint_seconds: float | None = Field(
        60.0, gt=0, description="seconds between checkpoints: the work that a crash may cost"
    )
    checkpoint_every: int | None = Field(
        None, ge=1, description="steps between checkpoints, besides those by time"
    )
    keep_checkpoints: int = Field(
        2, ge=1, description="how many of the newest checkpoints to keep, beside the best one"
    )
    log: tuple[str, ...] = Field(
        (), description="writers that get these lines too, with commas (vaezoo list --kind loggers)"
    )

    @model_validator(mode="before")
    @classmethod
    def _steps_or_epochs(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("steps") is not None:
            if values.get("epochs") is not None:
                raise ValueError("give --epochs or --steps, not both")
            return {**values, "epochs": None}
        if isinstance(values, Mapping) and "epochs" in values and values["epochs"] is None:
            raise ValueError("give --epochs or --steps: training must end")
        return values
