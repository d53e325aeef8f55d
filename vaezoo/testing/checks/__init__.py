"""The checks, in the order in which they are run."""

from __future__ import annotations

from vaezoo.testing import multi_process
from vaezoo.testing.checks import datasets, likelihood, outputs, registration, repeatable, training

LOSS_CHECKS = (
    registration.registration,
    registration.options,
    likelihood.terms,
    likelihood.extremes,
    likelihood.batch_size,
    training.phases,
    training.gradients,
    repeatable.seeds,
    repeatable.evaluation,
    repeatable.weights,
    training.half_precision,
    training.flops,
    training.compiled,
    multi_process.processes,
)
"""What a loss must keep, with a model that it is for."""

MODEL_CHECKS = (
    outputs.shapes,
    likelihood.rate,
    likelihood.bound,
    training.overfit,
    repeatable.independence,
    outputs.labels,
    outputs.sampling,
    *LOSS_CHECKS,
)
"""What a model must keep, with its default loss or another."""

DATASET_CHECKS = (
    registration.registration,
    registration.options,
    datasets.examples,
    datasets.values,
    datasets.repeatable,
    datasets.disjoint,
    datasets.validation,
    datasets.record,
    datasets.missing,
)
"""What a data set must keep."""

NAMES = {check.name for check in (*MODEL_CHECKS, *DATASET_CHECKS)}
