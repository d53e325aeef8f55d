"""How latents stand to known factors: scores taken several times, on other examples each time."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable
from importlib.util import find_spec
from typing import ClassVar

import torch
from torch import Tensor

from vaezoo.evaluation import disentanglement as scores
from vaezoo.evaluation.metric import (
    BaseMetric,
    EvalBatch,
    EvalContext,
    Evidence,
    MetricResult,
    MetricState,
    MetricUnavailable,
)
from vaezoo.evaluation.metrics.latent import ACTIVE_VARIANCE

LARGEST = 10_000
"""How many examples a repetition takes, half of the split at most."""
FEWEST = 1000
_NOTABLE = 0.1
"""Nats by which mutual information may be overstated before a word is said of it."""

Score = Callable[[Tensor, Tensor, torch.Generator], float]


class LatentsAndFactors(MetricState):
    """Posterior means and factors of every example."""

    def __init__(self, setting: EvalContext) -> None:
        super().__init__(setting)
        if setting.examples < FEWEST:
            raise MetricUnavailable(
                f"it takes {FEWEST:,} examples, and these are {setting.examples:,}"
            )
        self._codes: list[Tensor] = []
        self._factors: list[Tensor] = []

    def add(self, view: EvalBatch) -> None:
        self._factors.append(view.factors)
        self._codes.append(view.latents.float().cpu())

    @functools.cached_property
    def codes(self) -> Tensor:
        """Of the latents that vary, [examples, latents]: others tell nothing but noise."""
        codes = torch.cat(self._codes)
        active = codes.double().var(0) > ACTIVE_VARIANCE
        if not active.any():
            raise MetricUnavailable("none of its latents is active")
        return codes[:, active]

    @functools.cached_property
    def factors(self) -> Tensor:
        factors = scores.varying(torch.cat(self._factors))
        if factors.shape[1] < 2:
            raise MetricUnavailable("fewer than two factors vary among these examples")
        return factors

    @property
    def size(self) -> int:
        """How many examples a repetition takes."""
        return min(LARGEST, len(self.codes) // 2)

    def repeated(self, name: str, score: Score, caution: str = "") -> MetricResult:
        """The mean and the spread of a score over repetitions, each on examples of its own."""
        found = []
        for number in range(self.setting.repeats):
            self.setting.on_progress(name, number, self.setting.repeats)
            found.append(score(*self._some(number)))
        spread = statistics.stdev(found) if len(found) > 1 else None
        of = f"standard deviation over {len(found)} draws of examples"
        return MetricResult(statistics.fmean(found), spread, of, note=caution, examples=self.size)

    def _some(self, number: int) -> tuple[Tensor, Tensor, torch.Generator]:
        generator = torch.Generator().manual_seed(self.setting.seed * 1009 + number)
        index = torch.randperm(len(self.codes), generator=generator)[: self.size]
        factors = scores.varying(self.factors[index])
        return self.codes[index], factors, generator

    @functools.cached_property
    def caution(self) -> str:
        """By how much mutual information is overstated, where that is no small part of it."""
        values = [int(column.max()) + 1 for column in self.factors.T]
        most = max((scores.BINS - 1) * (count - 1) / (2 * self.size) for count in values)
        if most < _NOTABLE:
            return ""
        return (
            f"{self.size:,} examples overstate mutual information by up to {most:.2f} nats: "
            "--split train has more"
        )

    @functools.cached_property
    def dci(self) -> tuple[MetricResult, MetricResult, MetricResult]:
        """All three at once: they share the forests."""
        found: list[tuple[float, float, float]] = []

        def keep(codes: Tensor, factors: Tensor, generator: torch.Generator) -> float:
            found.append(scores.dci(codes, factors, generator))
            return found[-1][0]

        whole = self.repeated("dci", keep)

        def part(number: int) -> MetricResult:
            values = [f[number] for f in found]
            spread = statistics.stdev(values) if len(values) > 1 else None
            return MetricResult(
                statistics.fmean(values), spread, whole.uncertainty_kind, examples=whole.examples
            )

        return part(0), part(1), part(2)


class Mig(BaseMetric):
    collects = (LatentsAndFactors,)

    def measure(self, evidence: Evidence) -> MetricResult:
        def score(codes: Tensor, factors: Tensor, generator: torch.Generator) -> float:
            return scores.mig(scores.mutual_information(codes, factors), scores.entropies(factors))

        seen = evidence[LatentsAndFactors]
        return seen.repeated("mig", score, seen.caution)


class Modularity(BaseMetric):
    collects = (LatentsAndFactors,)

    def measure(self, evidence: Evidence) -> MetricResult:
        def score(codes: Tensor, factors: Tensor, generator: torch.Generator) -> float:
            return scores.modularity(scores.mutual_information(codes, factors))

        seen = evidence[LatentsAndFactors]
        return seen.repeated("modularity", score, seen.caution)


class FactorVaeScore(BaseMetric):
    collects = (LatentsAndFactors,)

    def measure(self, evidence: Evidence) -> MetricResult:
        return evidence[LatentsAndFactors].repeated("factor_vae_score", scores.factor_vae_score)


class Sap(BaseMetric):
    collects = (LatentsAndFactors,)

    def measure(self, evidence: Evidence) -> MetricResult:
        _require_sklearn()
        return evidence[LatentsAndFactors].repeated("sap", scores.sap)


class _Dci(BaseMetric):
    collects = (LatentsAndFactors,)
    part: ClassVar[int]

    def measure(self, evidence: Evidence) -> MetricResult:
        _require_sklearn()
        return evidence[LatentsAndFactors].dci[self.part]


class DciDisentanglement(_Dci):
    part = 0


class DciCompleteness(_Dci):
    part = 1


class DciInformativeness(_Dci):
    part = 2


def _require_sklearn() -> None:
    if find_spec("sklearn") is None:
        raise MetricUnavailable("it needs scikit-learn: pip install 'vaezoo[metrics]'")
