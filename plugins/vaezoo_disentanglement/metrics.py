"""Disentanglement metrics, repeated on different examples and averaged."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TypeVar

import torch
from torch import Tensor

from vaezoo import MetricState
from vaezoo.evaluation.latents import ACTIVE_VARIANCE
from vaezoo.evaluation.metric import (
    MAX_EXAMPLES,
    MIN_EXAMPLES,
    EvalBatch,
    EvalContext,
    MetricResult,
    MetricUnavailable,
)

from . import scores

_NOTABLE = 0.1
"""A bias of the mutual information above this, in nats, is mentioned."""

T = TypeVar("T")


class FactorScores(MetricState):
    """Posterior means and factors of every example, and the scores that follow from them."""

    def __init__(self, context: EvalContext) -> None:
        super().__init__(context)
        context.require_examples(MIN_EXAMPLES)
        self._codes: list[Tensor] = []
        self._factors: list[Tensor] = []

    def update(self, batch: EvalBatch) -> None:
        self._factors.append(batch.factors)
        self._codes.append(batch.latents.float().cpu())

    @functools.cached_property
    def codes(self) -> Tensor:
        """The active latents, [examples, latents]: others are noise."""
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
        """How many examples a repetition takes: half of the split at most."""
        return min(MAX_EXAMPLES, len(self.codes) // 2)

    def mig(self) -> MetricResult:
        def score(codes: Tensor, factors: Tensor, generator: torch.Generator) -> float:
            return scores.mig(scores.mutual_information(codes, factors), scores.entropies(factors))

        return self._average(self._repeat("mig", score), self._bias_note)

    def modularity(self) -> MetricResult:
        def score(codes: Tensor, factors: Tensor, generator: torch.Generator) -> float:
            return scores.modularity(scores.mutual_information(codes, factors))

        return self._average(self._repeat("modularity", score), self._bias_note)

    def factor_vae_score(self) -> MetricResult:
        return self._average(self._repeat("factor_vae_score", scores.factor_vae_score))

    def sap(self) -> MetricResult:
        _require_sklearn()
        return self._average(self._repeat("sap", scores.sap))

    def dci_disentanglement(self) -> MetricResult:
        return self._average([d for d, _, _ in self._dci])

    def dci_completeness(self) -> MetricResult:
        return self._average([c for _, c, _ in self._dci])

    def dci_informativeness(self) -> MetricResult:
        return self._average([i for _, _, i in self._dci])

    @functools.cached_property
    def _dci(self) -> list[tuple[float, float, float]]:
        """All three of each repetition: they share the forests."""
        _require_sklearn()
        return self._repeat("dci", scores.dci)

    def _repeat(self, name: str, score: Callable[[Tensor, Tensor, torch.Generator], T]) -> list[T]:
        """The score of each repetition, on a random part of the examples."""
        found = []
        for number in range(self.context.repeats):
            self.context.on_progress(name, number, self.context.repeats)
            generator = torch.Generator().manual_seed(self.context.seed * 1009 + number)
            index = torch.randperm(len(self.codes), generator=generator)[: self.size]
            factors = scores.varying(self.factors[index])
            found.append(score(self.codes[index], factors, generator))
        return found

    def _average(self, found: Sequence[float], note: str = "") -> MetricResult:
        std = statistics.stdev(found) if len(found) > 1 else None
        kind = f"standard deviation over {len(found)} draws of examples"
        return MetricResult(statistics.fmean(found), std, kind, note=note, examples=self.size)

    @property
    def _bias_note(self) -> str:
        """By how much the mutual information is too high, if that is notable."""
        values = [int(column.max()) + 1 for column in self.factors.T]
        most = max((scores.BINS - 1) * (count - 1) / (2 * self.size) for count in values)
        if most < _NOTABLE:
            return ""
        return (
            f"{self.size:,} examples overstate mutual information by up to {most:.2f} nats: "
            "--split train has more"
        )


def _require_sklearn() -> None:
    if find_spec("sklearn") is None:
        raise MetricUnavailable("it needs scikit-learn: pip install 'vaezoo[metrics]'")
