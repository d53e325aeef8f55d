"""The checks, in the order in which they are run."""

from __future__ import annotations

from vaezoo.testing.check import Check
from vaezoo.testing.checks import (
    arithmetic,
    datasets,
    labels,
    learning,
    processes,
    repeatable,
    shapes,
    storage,
)
from vaezoo.testing.checks import lazy_import as door
from vaezoo.testing.checks import likelihood as nats
from vaezoo.testing.loaded import Loaded
from vaezoo.testing.model_with_loss import ModelWithLoss

LOSS_CHECKS: tuple[Check[ModelWithLoss], ...] = (
    door.registration,
    storage.options,
    nats.terms,
    nats.extremes,
    nats.batch_size,
    learning.phases,
    learning.gradients,
    repeatable.seeds,
    repeatable.evaluation,
    storage.weights,
    arithmetic.half_precision,
    arithmetic.flops,
    arithmetic.compiled,
    processes.processes,
)
"""What a loss must keep, with a model that it is for."""

MODEL_CHECKS: tuple[Check[ModelWithLoss], ...] = (
    shapes.shapes,
    nats.rate,
    nats.bound,
    learning.overfit,
    repeatable.independence,
    labels.labels,
    labels.sampling,
    *LOSS_CHECKS,
)
"""What a model must keep, with its default loss or another."""

DATASET_CHECKS: tuple[Check[Loaded], ...] = (
    datasets.registration,
    datasets.options,
    datasets.examples,
    datasets.values,
    datasets.repeatable,
    datasets.disjoint,
    datasets.validation,
    datasets.record,
    datasets.missing,
)
"""What a data set must keep."""

NAMES = {check.name for check in MODEL_CHECKS} | {check.name for check in DATASET_CHECKS}
