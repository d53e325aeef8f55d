"""The checks, in the order in which they are run."""

from __future__ import annotations

from vaezoo.testing import multi_process
from vaezoo.testing.check import Check
from vaezoo.testing.checks import (
    arithmetic,
    datasets,
    labels,
    learning,
    likelihood,
    registration,
    repeatable,
    shapes,
)
from vaezoo.testing.subjects import LoadedDataset, ModelWithLoss

LOSS_CHECKS: tuple[Check[ModelWithLoss], ...] = (
    registration.registration,
    registration.options,
    likelihood.terms,
    likelihood.extremes,
    likelihood.batch_size,
    learning.phases,
    learning.gradients,
    repeatable.seeds,
    repeatable.evaluation,
    registration.weights,
    arithmetic.half_precision,
    arithmetic.flops,
    arithmetic.compiled,
    multi_process.processes,
)
"""What a loss must keep, with a model that it is for."""

MODEL_CHECKS: tuple[Check[ModelWithLoss], ...] = (
    shapes.shapes,
    likelihood.rate,
    likelihood.bound,
    learning.overfit,
    repeatable.independence,
    labels.labels,
    labels.sampling,
    *LOSS_CHECKS,
)
"""What a model must keep, with its default loss or another."""

DATASET_CHECKS: tuple[Check[LoadedDataset], ...] = (
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
