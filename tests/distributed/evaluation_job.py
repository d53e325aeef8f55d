"""What several processes that share an evaluation find, and what one does: for training_job.py."""

from __future__ import annotations

from typing import Any

import torch

import vaezoo
from vaezoo import BaseMetric, MetricSpec
from vaezoo.data.loader import BatchLoader
from vaezoo.distributed import local_only
from vaezoo.evaluation.evaluate import evaluate, select_metrics
from vaezoo.evaluation.metric import (
    EvalBatch,
    EvalContext,
    Evidence,
    MetricResult,
    MetricState,
    MetricUnavailable,
)
from vaezoo.evaluation.sums import Mean, Total
from vaezoo.plugins.registry import registry


class Seen(MetricState):
    """How often each example is seen."""

    shared = True

    def __init__(self, setting: EvalContext) -> None:
        super().__init__(setting)
        self.times = Total()

    def add(self, view: EvalBatch) -> None:
        self.times.add(torch.bincount(view.index, minlength=self.setting.examples))


class SeenByOne(Seen):
    """The same of a collector that says nothing of sums."""

    shared = False


class Noise(MetricState):
    """Draws that nobody else asks for, after the posterior's."""

    shared = True

    def __init__(self, setting: EvalContext) -> None:
        super().__init__(setting)
        self.mean = Mean()

    def add(self, view: EvalBatch) -> None:
        self.mean.add(torch.randn(len(view)))


class NoiseOfOne(Noise):
    shared = False


class Second(MetricState):
    """Has no number for the second batch, which the first process does not see."""

    shared = True

    def add(self, view: EvalBatch) -> None:
        if view.number == 1:
            raise MetricUnavailable("the second batch has none")


class Third(Second):
    def add(self, view: EvalBatch) -> None:
        if view.number == 2:
            raise ZeroDivisionError("in the third\nbatch")


class Times(BaseMetric):
    """By how much the number of times that an example is seen is not 1, at most."""

    collects = (Seen,)

    def measure(self, evidence: Evidence) -> MetricResult:
        times = evidence[self.collects[0]].times.values
        return MetricResult(float((times - 1).abs().max()))


class TimesByOne(Times):
    collects = (SeenByOne,)


class Drawn(BaseMetric):
    collects = (Noise,)

    def measure(self, evidence: Evidence) -> MetricResult:
        return MetricResult.over_examples(evidence[self.collects[0]].mean)


class DrawnByOne(Drawn):
    collects = (NoiseOfOne,)


class Nothing(BaseMetric):
    collects = (Second,)

    def measure(self, evidence: Evidence) -> MetricResult:
        return MetricResult(1.0)


class Broken(Nothing):
    collects = (Third,)


# Those that draw where one process sees all come first: what the others draw must not follow.
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
            setting = EvalContext(
                model,
                frozenset(registry().model(name).tags),
                BatchLoader(splits.test, batch_size=size, device=torch.device("cpu")),
                splits=splits,
                importance_samples=3,
                seed=5,
            )
            specs = [*OWN, *select_metrics(["likelihood", "latent", "reconstructions"])]
            together = evaluate(setting, specs).to_dict()
            with local_only():
                found[f"{name}, {size} at once"] = [together, evaluate(setting, specs).to_dict()]
    return found
