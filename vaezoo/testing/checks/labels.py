"""Checks of labels and of sampling."""

from __future__ import annotations

import torch
from torch import Tensor

from vaezoo.data.spec import DataSpec
from vaezoo.errors import OptionError
from vaezoo.models.base import BaseVAE
from vaezoo.runtime.seed import seeded
from vaezoo.testing.check import CheckFailed, CheckSkipped, check, fail_if
from vaezoo.testing.subjects import CPU, ModelWithLoss


@check("set `conditional = True`, tag it `labels`, and use y in decode or prior")
def labels(pair: ModelWithLoss) -> None:
    """A model uses labels if it declares them"""
    conditional = pair.model_class.conditional
    declared = "labels" in pair.tags or pair.model_spec.input_spec.labels
    if declared and not conditional:
        raise CheckFailed("it declares labels, but without conditional = True it never gets any")
    if not conditional:
        raise CheckSkipped("it is not conditional")
    fail_if(not declared, "it is conditional, but has no tag `labels`")
    with pair.in_evaluation() as model:
        first, second = (torch.full((4,), label) for label in (0, 1))
        drawn = []
        for y in (first, second):
            with seeded(0, CPU):
                drawn.append(model.sample(4, y))
        fail_if(drawn[0].equal(drawn[1]), "samples of two classes are the same")
    if not pair.model_spec.input_spec.labels:
        without = DataSpec(shape=pair.data.shape, domain=pair.data.domain, num_examples=64)
        try:
            pair.build(without)(pair.batch(data=without).x)
        except Exception as error:
            raise CheckFailed(
                f"without labels: {type(error).__name__}: {error}; say InputSpec(labels=True) if "
                "it needs labels"
            ) from error


@check("let `prior` return a distribution also before fit_prior")
def sampling(pair: ModelWithLoss) -> None:
    """Samples can be drawn before and after training, with a temperature, as means and draws"""
    _draw(pair, pair.build().eval(), "before training")
    with pair.in_evaluation() as model:
        model.fit_prior(lambda: [pair.batch(8)])
        _draw(pair, model, "after training")


def _draw(pair: ModelWithLoss, model: BaseVAE, when: str) -> None:
    for count, temperature, mean in ((1, 1.0, True), (3, 1.0, False), (3, 0.5, True)):
        y = torch.arange(count) % len(pair.data.class_names) if model.conditional else None
        with seeded(0, CPU):
            try:
                drawn: Tensor = model.sample(count, y, temperature, mean)
            except (NotImplementedError, OptionError):
                if temperature == 1.0:
                    raise
                continue  # a prior without a scale supports no temperature
        if tuple(drawn.shape) != (count, *pair.data.shape):
            raise CheckFailed(f"{when} sample({count}) is {tuple(drawn.shape)}")
        fail_if(not drawn.isfinite().all(), f"{when} sample({count}) is not finite")
        if mean and pair.data.domain != "real" and not ((drawn >= 0) & (drawn <= 1)).all():
            raise CheckFailed(f"{when} sample({count}) leaves [0, 1]")
