"""Evaluation by several processes and by one, for training_job.py."""

from __future__ import annotations

from typing import Any

import torch

import vaezoo
from vaezoo import MetricSpec, MetricState
from vaezoo.data.loader import BatchLoader
from vaezoo.distributed import local_only
from vaezoo.evaluation.accumulators import RunningSum
from vaezoo.evaluation.evaluate import evaluate, select_metrics
from vaezoo.evaluation.metric import (
    EvalBatch,
    EvalContext,
    ExampleMoments,
    MetricResult,
    MetricUnavailable,
)
from vaezoo.plugins.registry import registry


class Times(MetricState):
    """By how much the number of times that an example is seen differs from 1, at most."""

    mergeable = True

    def __init__(self, context: EvalContext) -> None:
        super().__init__(context)
        self.counts = RunningSum()

    def update(self, batch: EvalBatch) -> None:
        self.counts.update(torch.bincount(batch.index, minlength=self.context.num_examples))

    def times(self) -> MetricResult:
        assert self.counts.sum is not None
        return MetricResult(float((self.counts.sum - 1).abs().max()))


class TimesByOne(Times):
    """The same, in one process."""

    mergeable = False
    timesbyone = Times.times


class Drawn(ExampleMoments):
    """Random numbers that no other metric uses, drawn after the posterior's."""

    def measure(self, batch: EvalBatch) -> torch.Tensor:
        return torch.randn(len(batch))

    def drawn(self) -> MetricResult:
        return MetricResult.over_examples(self.values)


class DrawnByOne(Drawn):
    mergeable = False
    drawnbyone = Drawn.drawn


class Nothing(MetricState):
    """Has no value for the second batch, which rank 0 does not see."""

    mergeable = True

    def update(self, batch: EvalBatch) -> None:
        if batch.number == 1:
            raise MetricUnavailable("the second batch has none")

    def nothing(self) -> MetricResult:
        return MetricResult(1.0)


class Broken(Nothing):
    broken = Nothing.nothing

    def update(self, batch: EvalBatch) -> None:
        if batch.number == 2:
            raise ZeroDivisionError("in the third\nbatch")


# Those that one process computes come first: what the others draw must not follow from it.
OWN = [
    MetricSpec(
        name=metric.__name__.lower(),
        target=f"evaluation_job:{metric.__name__}",
        summary="For a test",
        formula="1",
        direction="neither",
        group="latent",
    )
    for metric in (DrawnByOne, Times, TimesByOne, Drawn, Nothing, Broken)
]
MODELS: dict[str, dict[str, Any]] = {
    "vanilla": {"network": "mlp", "hidden": (16,), "latent_dim": 3},
    "vq_vae": {"hidden": (8, 8)},
    "autoencoder": {"network": "mlp", "hidden": (16,), "latent_dim": 3},
}


def measured() -> dict[str, list[dict[str, Any]]]:
    """By a name: what all found together, and what this process finds by itself."""
    splits = vaezoo.load_data("sprites", examples=120, test=25, image_size=16)
    found = {}
    for name, options in MODELS.items():
        torch.manual_seed(0)
        model = vaezoo.create_model(name, data=(1, 16, 16), **options)
        for size in (4, 9, 64):
            context = EvalContext(
                model,
                frozenset(registry().get("model", name).tags),
                BatchLoader(splits.test, batch_size=size, device=torch.device("cpu")),
                splits=splits,
                importance_samples=3,
                seed=5,
            )
            specs = [*OWN, *select_metrics(["likelihood", "latent", "reconstructions"])]
            together = evaluate(context, specs).to_dict()
            with local_only():
                found[f"{name}, {size} at once"] = [together, evaluate(context, specs).to_dict()]
    return found
