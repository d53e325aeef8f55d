"""What training and opened runs share: how a run's model is evaluated, and samples are drawn."""

from __future__ import annotations

import warnings
from typing import Literal

import torch
from torch import Tensor

from vaezoo.config import RunConfig
from vaezoo.data.base import Splits, Standardizer
from vaezoo.data.loader import BatchLoader
from vaezoo.errors import OptionError, VaezooWarning
from vaezoo.evaluation.metric import EvalContext
from vaezoo.models.base import UNFITTED_PRIOR, BaseVAE
from vaezoo.runtime import report_progress
from vaezoo.runtime.device import seeded

SplitName = Literal["train", "validation", "test"]

EVAL_BATCH_SIZE = 256
"""Examples that are sampled or evaluated together."""


def draw_samples(
    model: BaseVAE, n: int, *, label: int | None = None, temperature: float = 1.0, seed: int = 0
) -> Tensor:
    """n samples of a model in evaluation mode, in the data's units, on the CPU.

    They are the same for the same seed: draws of p(x|z) for counts and real-valued vectors, else
    its mean, because noise hides what a picture shows.
    """
    if not model.prior_is_fitted:
        warnings.warn(UNFITTED_PRIOR, VaezooWarning, stacklevel=2)
    mean = model.data.is_bounded or (model.data.ndim > 0 and model.data.domain == "real")
    y = sample_labels(model, n, label)
    parts = []
    with seeded(seed, model.device):
        for i in range(0, n, EVAL_BATCH_SIZE):
            count = min(EVAL_BATCH_SIZE, n - i)
            labels = None if y is None else y[i : i + count].to(model.device)
            parts.append(model.sample(count, labels, temperature, mean).float().cpu())
    return Standardizer(model.data).inverse(torch.cat(parts))


def sample_labels(model: BaseVAE, n: int, label: int | None = None) -> Tensor | None:
    """The classes of n samples: the given one, else each in turn; None if the model takes none."""
    if label is not None:
        return torch.full((n,), check_label(model, label))
    return torch.arange(n) % len(model.data.class_names) if model.samples_classes else None


def check_label(model: BaseVAE, label: int) -> int:
    """The label. OptionError unless samples can be of a class, and there is this one."""
    if not model.samples_classes:
        raise OptionError("--class: this model is not conditional, it takes no labels")
    classes = len(model.data.class_names)
    if not 0 <= label < classes:
        raise OptionError(f"--class {label}: classes are numbered from 0 to {classes - 1}")
    return label


def eval_loader(
    config: RunConfig, splits: Splits, split: SplitName, device: torch.device
) -> BatchLoader:
    """The batches of a split for evaluation."""
    return BatchLoader(
        getattr(splits, split),
        batch_size=EVAL_BATCH_SIZE,
        device=device,
        spec=splits.spec,
        binarize=config.data.binarize,
    )


def eval_context(
    model: BaseVAE, config: RunConfig, splits: Splits, split: SplitName = "test", seed: int = 0
) -> EvalContext:
    """The context for metrics of a run's model on a split."""
    return EvalContext(
        model,
        frozenset(config.components.model.tags),
        eval_loader(config, splits, split, model.device),
        splits=splits,
        loaded=getattr(splits, split),
        split_name=split,
        data_name=config.components.data.name,
        seed=seed,
        on_progress=report_progress,
    )
