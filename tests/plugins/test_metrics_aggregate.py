"""The parts of the rate against closed forms, where the aggregate posterior is a Gaussian."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Normal, kl_divergence

from vaezoo import BaseVAE, DataSpec, Options, TensorSplit
from vaezoo.data.loader import BatchLoader
from vaezoo.evaluation.evaluate import Evaluation, evaluate, select_metrics
from vaezoo.evaluation.metric import EvalContext
from vaezoo.models.distributions import diagonal_normal
from vaezoo.models.likelihoods import GaussianLikelihood
from vaezoo_metrics.aggregate import AggregatePosterior

PARTS = ("rate", "mutual_information", "marginal_kl")


class Linear(BaseVAE):
    """q(z|x) = N(a x + b, s²), p(z) = N(0, 1), on numbers: for x from N(0, τ²), I(x; z) is
    log(1 + a² τ² / s²) / 2, and q(z) is N(b, a² τ² + s²)."""

    def __init__(self, slope: float, offset: float, scale: float, values: int = 1) -> None:
        super().__init__(Options(), DataSpec(shape=(values,), domain="real"))
        self.latent_shape = (values,)
        self.slope, self.offset, self.scale = slope, offset, scale
        self.likelihood = GaussianLikelihood(
            DataSpec(shape=self.data.shape, domain="real"), 1.0, learned=False
        )

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return diagonal_normal(self.slope * x + self.offset, torch.full_like(x, self.scale))

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return self.likelihood(z)


def quantiles(count: int, spread: float) -> Tensor:
    """Numbers that are spread as N(0, spread²) is, exactly: no luck of a draw. [count, 1]"""
    return spread * Normal(0, 1).icdf((torch.arange(count) + 0.5) / count)[:, None]


def measure(model: BaseVAE, x: Tensor, batch: int = 256) -> Evaluation:
    batches = BatchLoader(TensorSplit(x), batch_size=batch, device=torch.device("cpu"))
    setting = EvalContext(model, frozenset(("elbo", "importance")), batches)
    return evaluate(setting, select_metrics(PARTS))


@pytest.mark.parametrize(
    ("slope", "offset", "scale", "spread"),
    [(0.8, 0.0, 0.5, 1.1), (0.3, 0.7, 0.9, 2.0), (1.0, -1.0, 0.3, 0.4), (0.0, 0.5, 1.0, 1.0)],
)
def test_parts_of_the_rate(slope: float, offset: float, scale: float, spread: float) -> None:
    x = quantiles(4000, spread)
    result = measure(Linear(slope, offset, scale), x)
    found = {name: result.metrics[name] for name in PARTS}
    information = 0.5 * math.log(1 + (slope * spread / scale) ** 2)
    whole = Normal(offset, math.sqrt((slope * spread) ** 2 + scale**2))
    marginal = float(kl_divergence(whole, Normal(0, 1)))
    variance = (slope * spread) ** 2 + offset**2
    rate = 0.5 * (variance + scale**2 - 1 - 2 * math.log(scale))
    assert rate == pytest.approx(information + marginal)
    assert result.rate == pytest.approx(rate, rel=0.01)
    for name, expected in (("mutual_information", information), ("marginal_kl", marginal)):
        value, error = found[name].value, found[name].uncertainty
        assert value is not None
        assert error is not None
        assert value == pytest.approx(expected, abs=4 * error + 0.01)
        assert error < 0.08
        assert not found[name].note


def test_of_posteriors_that_never_overlap_it_is_log_n() -> None:
    result = measure(Linear(100.0, 0.0, 0.1), torch.arange(300.0)[:, None])
    number = result.metrics["mutual_information"]
    assert number.value == pytest.approx(math.log(300), abs=1e-5)
    assert "near the upper limit" in number.note
    assert "near the upper limit" in result.metrics["marginal_kl"].note


def test_of_collapsed_posteriors_it_is_nothing() -> None:
    result = measure(Linear(0.0, 0.0, 1.0, values=5), torch.randn(300, 5))
    for name in PARTS:
        assert result.metrics[name].value == pytest.approx(0.0, abs=1e-5)


def test_batches_do_not_matter() -> None:
    x = quantiles(300, 1.0)
    whole, parts = (measure(Linear(0.8, 0.1, 0.5), x, batch) for batch in (300, 7))
    for name in PARTS:
        first, second = whole.metrics[name], parts.metrics[name]
        # The draws differ with the batches; both are of the same number.
        assert first.value == pytest.approx(second.value, abs=0.2)
        assert first.comparable == second.comparable


def test_the_population_is_told_and_keeps_unlike_numbers_apart() -> None:
    few, many = (measure(Linear(0.8, 0.1, 0.5), quantiles(n, 1.0)) for n in (100, 200))
    first, second = (r.metrics["mutual_information"].comparable for r in (few, many))
    assert "100 examples" in first
    assert first != second


@pytest.mark.parametrize(("count", "samples"), [(2500, 1000), (300, 300)])
def test_the_densities_are_compared_at_examples_evenly_spread_from_first_to_last(
    count: int, samples: int
) -> None:
    batches = BatchLoader(
        TensorSplit(torch.zeros(count, 1)), batch_size=256, device=torch.device("cpu")
    )
    setting = EvalContext(Linear(0.8, 0.1, 0.5), frozenset(("elbo", "importance")), batches)
    chosen = sorted(AggregatePosterior(setting).sampled)
    assert (len(chosen), chosen[0], chosen[-1]) == (samples, 0, count - 1)
    gaps = [after - before for before, after in itertools.pairwise(chosen)]
    assert max(gaps) - min(gaps) <= 1


def test_several_latents_add_up() -> None:
    """Independent coordinates: I(x; z) is the sum of theirs."""
    # Not the seed of the evaluation's noise, which would be these same numbers.
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(10_000, 3, generator=generator)
    result = measure(Linear(0.5, 0.0, 0.8, values=3), x)
    number = result.metrics["mutual_information"]
    expected = 3 * 0.5 * math.log(1 + (0.5 / 0.8) ** 2)
    assert number.value == pytest.approx(expected, abs=0.1)
