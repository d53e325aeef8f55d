"""The options of training. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from vaezoo.io import full_path
from vaezoo.options import Options


class TrainOptions(Options):
    """The options of training, as `vaezoo train --help` shows them."""

    epochs: int | None = Field(
        None,
        ge=1,
        le=10**9,
        description="number of passes over the training data; if neither this nor --steps is "
        "given: 10, or as many as 1,000 steps take",
    )
    steps: int | None = Field(
        None, ge=1, le=10**12, description="number of training steps, instead of --epochs"
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="stop after this many epochs without a better validation ELBO (loss, if "
        "there is no ELBO) and keep the best weights; none: train to the end, keep the last",
    )
    batch_size: int = Field(64, ge=1, description="examples of a step, over all processes together")
    accumulate: int = Field(
        1,
        ge=1,
        description="compute the batch of a step in this many parts, one after the other, and add "
        "up their gradients: the same step with less memory",
    )
    optimizer: Literal["adam", "adamw", "adamax", "radam", "sgd"] = Field(
        "adam", description="torch's optimizer of this name"
    )
    lr: float = Field(
        1e-3,
        gt=0,
        description="learning rate, the largest of the schedule; sgd needs a smaller one, because "
        "the loss is a sum over the values of an example",
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of sgd, beta1 of the others")
    adam_beta2: float = Field(
        0.999,
        ge=0,
        lt=1,
        description="decay of Adam's squared gradients, which sgd has not; a lower value suits "
        "short runs",
    )
    weight_decay: float | None = Field(
        None,
        ge=0,
        description="decay of the weights of layers, not of biases, norms and codebooks; none: "
        "0.01 for adamw, 0 for the others",
    )
    schedule: Literal["constant", "linear", "cosine", "step", "one_cycle"] = Field(
        "constant",
        description="constant learning rate; linear, cosine: down to 0 at the end; step: divided "
        "by 10 at --lr-milestones; one_cycle: up in 30% of the training, then down to nearly 0",
    )
    lr_warmup: float = Field(
        0.0,
        ge=0,
        description="number of first steps in which the learning rate rises linearly from 0; below "
        "1: a fraction of the training",
    )
    lr_milestones: tuple[float, ...] = Field(
        (0.5, 0.75), description="steps, or below 1 fractions of the training, of --schedule step"
    )
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="decay of an exponential moving average of the weights, such as 0.999, which "
        "validation and the final model use; none: the weights themselves",
    )
    grad_clip: float | None = Field(
        None, gt=0, description="largest gradient norm; larger gradients are scaled down to it"
    )
    skip_grad_norm: float | None = Field(
        None,
        gt=0,
        description="skip and count steps with a larger gradient norm than this before --grad-clip",
    )
    device: str = Field(
        "auto", description="device: cpu, cuda, cuda:1, mps; auto: a GPU if there is one"
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="CPU threads; none: one a core, at most the CPUs that affinity and container "
        "allow",
    )
    precision: Literal["auto", "fp32", "tf32", "bf16"] = Field(
        "auto",
        description="number format of the networks; auto: tf32 on GPUs that have it, bf16 on "
        "CPUs with matrix instructions for it, else fp32",
    )
    compile: Literal["auto", "off", "on"] = Field(
        "auto",
        description="use torch.compile, which first takes up to minutes; auto: on a GPU, for runs "
        "of 100,000 steps or more (on the CPUs that we measured it was not faster)",
    )
    graph: Literal["auto", "off", "on"] = Field(
        "auto",
        description="capture the step as a CUDA graph and replay it; auto: on a GPU, unless the "
        "model cannot be captured",
    )
    shard: bool = Field(
        False,
        description="shard weights and optimizer state over the processes (FSDP), for a model that "
        "is too large for one device; other models are slower with it",
    )
    deterministic: bool = Field(
        True, description="give the same numbers each time on the same machine; off can be faster"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="random seed of weights, noise and data order")
    log_every: int = Field(
        20, ge=1, le=1_000_000, description="number of steps between two lines of metrics.jsonl"
    )
    on_nonfinite: Literal["stop", "skip"] = Field(
        "stop",
        description="if the loss or a gradient is not finite: stop the run, or skip and count the "
        "step, and stop if too many steps are skipped",
    )
    checkpoint_seconds: float | None = Field(
        60.0, gt=0, description="seconds between checkpoints: a crash loses at most this work"
    )
    checkpoint_every: int | None = Field(
        None, ge=1, description="number of steps between checkpoints, in addition to those by time"
    )
    keep_checkpoints: int = Field(
        2, ge=1, description="number of newest checkpoints to keep, in addition to the best one"
    )
    init_from: Annotated[Path, AfterValidator(full_path)] | None = Field(
        None,
        description="start from the weights of this run, or of a .safetensors file: what fits is "
        "copied once, and the rest is drawn from the seed",
    )
    init_parts: tuple[str, ...] = Field(
        (),
        description="copy only these parts with --init-from, with commas, such as encoder,decoder",
    )
    log: tuple[str, ...] = Field(
        (), description="loggers that get these lines too, with commas (vaezoo list --kind loggers)"
    )

    @model_validator(mode="before")
    @classmethod
    def _steps_or_epochs(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("steps") is not None:
            if values.get("epochs") is not None:
                raise ValueError("give --epochs or --steps, not both")
            return {**values, "epochs": None}
        return values

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.init_parts and self.init_from is None:
            raise ValueError("--init-parts needs --init-from")
        if self.schedule == "one_cycle" and self.lr_warmup:
            raise ValueError("--schedule one_cycle has its own warm-up: leave --lr-warmup out")
        return self

    @property
    def decay(self) -> float:
        """The weight decay, in which `none` is torch's own default."""
        default = 0.01 if self.optimizer == "adamw" else 0.0
        return default if self.weight_decay is None else self.weight_decay

    def total_steps(self, steps_per_epoch: int) -> int:
        """The number of training steps; 10 epochs of a few examples alone would train nothing."""
        if self.epochs is not None:
            return self.epochs * steps_per_epoch
        return self.steps or max(10 * steps_per_epoch, 1000)
