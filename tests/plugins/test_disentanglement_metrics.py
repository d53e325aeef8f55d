"""Disentanglement scores of a model whose latents are known functions of the factors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution

from vaezoo import BaseVAE, DataSpec, Options, Splits, TensorSplit
from vaezoo.data.loader import BatchLoader
from vaezoo.evaluation.evaluate import evaluate, select_metrics
from vaezoo.evaluation.metric import EvalContext, MetricResult
from vaezoo.models.distributions import diagonal_normal
from vaezoo.models.likelihoods import GaussianLikelihood


class Factors(TensorSplit):
    """Examples whose values are the factors, each standardised."""

    def __init__(self, factors: Tensor) -> None:
        values = factors.double()
        standard = (values - values.mean(0)) / values.std(0, correction=0)
        super().__init__(standard.float())
        self.known = factors

    def factors(self, index: Tensor) -> Tensor:
        return self.known[index]


class Scaled(BaseVAE):
    """The posterior's means are the values, and the values of the first factor times `scale`."""

    def __init__(self, scale: float) -> None:
        super().__init__(Options(), DataSpec(shape=(2,), domain="real"))
        self.latent_shape = (3,)
        self.scale = scale
        self.likelihood = GaussianLikelihood(
            DataSpec(shape=self.data.shape, domain="real"), 1.0, learned=False
        )

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        mean = torch.cat([x, self.scale * x[:, :1]], 1)
        return diagonal_normal(mean, torch.ones_like(mean))

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return self.likelihood(z[:, :2])


def measure(name: str, scale: float, factors: Tensor) -> MetricResult:
    split = Factors(factors)
    model = Scaled(scale)
    splits = Splits(model.data, split, split, split, "", factor_names=("rare", "even"))
    batches = BatchLoader(split, batch_size=500, device=torch.device("cpu"))
    context = EvalContext(model, frozenset(), batches, splits=splits, loaded=split, repeats=3)
    return evaluate(context, select_metrics([name])).metrics[name]


@pytest.fixture
def factors() -> Tensor:
    """Two independent factors of two values: one has 90 % of its examples at one of them."""
    rare, even = torch.meshgrid(torch.arange(20) < 2, torch.arange(200) < 100, indexing="ij")
    return torch.stack([rare, even], -1).view(-1, 2).long()


def test_each_gap_is_a_fraction_of_the_factors_own_entropy(factors: Tensor) -> None:
    """A copy of a factor of 90 to 10 has all of its information: 0.325 nats, not log 2."""
    found = measure("mig", 0.0, factors)
    assert found.value == pytest.approx(1.0, abs=0.02)
    share = -0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    assert share / math.log(2) < 0.5  # dividing by log 2 would give 0.73


@pytest.mark.parametrize(("variance", "score"), [(0.0099, 1.0), (0.0101, 0.5)])
def test_only_latents_of_a_variance_above_the_threshold_count(
    factors: Tensor, variance: float, score: float
) -> None:
    """A second copy of the first factor takes its lead away, if it is active."""
    found = measure("mig", math.sqrt(variance), factors)
    assert found.value == pytest.approx(score, abs=0.02)
