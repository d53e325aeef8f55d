"""Likelihoods of counts: probabilities by scipy, large counts in float32, means and samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from vaezoo import DataSpec, Options
from vaezoo.data.spec import DataStatistics
from vaezoo_likelihoods.gamma import stirling_remainder
from vaezoo_likelihoods.negative_binomial import NegativeBinomial, NegativeBinomialLikelihood
from vaezoo_likelihoods.options import DispersionOptions
from vaezoo_likelihoods.poisson import Poisson, PoissonLikelihood
from vaezoo_likelihoods.zero_inflated_negative_binomial import (
    ZeroInflatedNegativeBinomial,
    ZeroInflatedNegativeBinomialLikelihood,
)

stats = pytest.importorskip("scipy.stats")

COUNTS = (0.0, 1, 2, 7, 8, 9, 60, 1000, 1e5, 1e6, 1.6e7)
MEANS = (1e-4, 0.3, 1.0, 12.0, 950.0, 1e5, 1.001e6)
DATA = DataSpec(shape=(3, 2, 2), domain="count")


def column(*values: float, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor(values, dtype=dtype)[:, None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_poisson_is_scipys_for_large_counts_too(dtype: torch.dtype) -> None:
    for mean in MEANS:
        x = column(*COUNTS, dtype=dtype)
        log_rate = torch.full_like(x, math.log(mean))
        expected = stats.poisson.logpmf(x.flatten().double(), log_rate[0, 0].double().exp())
        found = Poisson(log_rate).log_prob(x)
        # float32: relative to the value, which is large only where the count is impossible
        tolerance = 1e-9 if dtype == torch.float64 else 3e-6
        np.testing.assert_allclose(found.double(), expected, rtol=tolerance, atol=tolerance * 300)


@pytest.mark.parametrize("theta", [1e-3, 0.5, 1.0, 40.0, 1e4, 1e6])
def test_negative_binomial_is_scipys_for_large_counts_and_nearly_poisson(theta: float) -> None:
    for mean in MEANS:
        for dtype, tolerance in ((torch.float64, 1e-8), (torch.float32, 4e-6)):
            x = column(*COUNTS, dtype=dtype)
            log_mean = torch.full_like(x, math.log(mean))
            log_theta = torch.full_like(x, math.log(theta))
            t, m = log_theta[0, 0].double().exp().item(), log_mean[0, 0].double().exp().item()
            expected = stats.nbinom.logpmf(x.flatten().double().numpy(), t, t / (t + m))
            if theta >= 1e6:  # where scipy's own terms cancel
                expected[:8] = nbinom_by_product(COUNTS[:8], t, m)
            found = NegativeBinomial(log_mean, log_theta).log_prob(x).double().numpy()
            used = slice(None) if theta < 1e6 else slice(0, 8)
            np.testing.assert_allclose(
                found[used], expected[used], rtol=tolerance, atol=300 * tolerance
            )


def nbinom_by_product(counts: tuple[float, ...], theta: float, mean: float) -> list[float]:
    """log[Γ(x + θ) / (Γ(θ) x!) (θ / (θ + μ))^θ (μ / (θ + μ))^x], factor by factor."""
    found = []
    for x in map(int, counts):
        factors = math.fsum(math.log((theta + i) / (i + 1)) for i in range(x))
        found.append(
            factors - theta * math.log1p(mean / theta) + x * math.log(mean / (theta + mean))
        )
    return found


def test_the_remainder_of_stirlings_formula() -> None:
    x = torch.logspace(-6, 7, 400, dtype=torch.float64)
    exact = torch.lgamma(x) - (x - 0.5) * x.log() + x - 0.5 * math.log(2 * math.pi)
    found = stirling_remainder(x)
    torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-7)
    assert (found.diff() < 0).all()
    assert (found > 0).all()
    inside = torch.tensor([0.3, 2.0, 7.9, 8.1, 30.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(stirling_remainder, (inside,))


def test_a_large_theta_is_poisson() -> None:
    x = column(0, 1, 5, 30)
    log_mean = torch.full_like(x, 1.5)
    found = NegativeBinomial(log_mean, torch.full_like(x, 20.0)).log_prob(x)
    torch.testing.assert_close(found, Poisson(log_mean).log_prob(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("log_mean", "log_theta", "logit"), [(1.0, 0.0, -1.0), (2.5, 2.0, 1.5)])
def test_probabilities_of_all_counts_sum_to_one(
    log_mean: float, log_theta: float, logit: float
) -> None:
    x = torch.arange(3000.0).double()[:, None]
    counts = NegativeBinomial(torch.full_like(x, log_mean), torch.full_like(x, log_theta))
    inflated = ZeroInflatedNegativeBinomial(counts, torch.full_like(x, logit))
    for distribution in (Poisson(torch.full_like(x, log_mean)), counts, inflated):
        p = distribution.log_prob(x).exp()
        assert float(p.sum()) == pytest.approx(1, abs=1e-9)
        assert float((p[:, None] * x).sum()) == pytest.approx(float(distribution.mean[0]), rel=1e-8)
    p = counts.log_prob(x).exp()
    variance = float((p[:, None] * x.square()).sum()) - math.exp(2 * log_mean)
    assert variance == pytest.approx(
        math.exp(log_mean) + math.exp(2 * log_mean - log_theta), rel=1e-6
    )
    extra = 1 / (1 + math.exp(-logit))
    zero = extra + (1 - extra) * float(p[0])
    assert float(inflated.log_prob(x).exp()[0]) == pytest.approx(zero)


LIKELIHOODS = [
    lambda data: PoissonLikelihood(Options(), data),
    *(
        lambda data, cls=cls, mode=mode: cls(DispersionOptions(dispersion_mode=mode), data)
        for cls in (NegativeBinomialLikelihood, ZeroInflatedNegativeBinomialLikelihood)
        for mode in ("shared", "per_value", "predicted")
    ),
]


@pytest.mark.parametrize("make", LIKELIHOODS)
@pytest.mark.parametrize("shape", [(4,), (3, 2, 2)])
def test_samples_are_whole_numbers_with_the_distributions_mean(
    make: type, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    model = make(DataSpec(shape=shape, domain="count"))
    distribution = model(torch.randn(2, *model.param_shape))
    draws = distribution.sample((4000,))
    assert draws.shape == (4000, 2, *shape)
    assert draws.equal(draws.round())
    assert (draws >= 0).all()
    error = draws.std(0) / math.sqrt(4000)
    assert ((draws.mean(0) - distribution.mean).abs() < 5 * error).all()
    assert model.bits_per_dim(math.log(2) * model.data.numel, model.data) == pytest.approx(1)


@pytest.mark.parametrize("make", LIKELIHOODS)
def test_gradients_are_those_of_finite_differences(make: type) -> None:
    torch.manual_seed(2)
    model = make(DATA).double()
    params = torch.randn(2, *model.param_shape, dtype=torch.float64, requires_grad=True)
    x = torch.tensor([0.0, 1, 2, 40, 0, 7, 8, 9, 3, 0, 500, 1]).double().view(3, 2, 2)
    assert torch.autograd.gradcheck(lambda p: model(p).log_prob(x.expand(2, -1, -1, -1)), (params,))
    for parameter in model.parameters():
        model.zero_grad()
        model(params).log_prob(x.expand(2, -1, -1, -1)).sum().backward()
        assert parameter.grad is not None
        with torch.no_grad():
            there = []
            for step in (1e-5, -1e-5):
                parameter.add_(step)
                there.append(model(params).log_prob(x.expand(2, -1, -1, -1)).sum())
                parameter.sub_(step)
        slope = float(there[0] - there[1]) / 2e-5
        assert float(parameter.grad.sum()) == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("make", LIKELIHOODS)
@pytest.mark.parametrize("raw", [-200.0, 0.0, 200.0])
@pytest.mark.parametrize("count", [0.0, 1.0, 1e7])
def test_values_and_gradients_are_finite_at_the_ends(make: type, raw: float, count: float) -> None:
    model = make(DATA)
    params = torch.full((1, *model.param_shape), raw, requires_grad=True)
    log_prob = model(params).log_prob(torch.full((1, 3, 2, 2), count))
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert params.grad is not None
    assert params.grad.isfinite().all()
    assert model(params).mean.isfinite().all()


def test_means_reach_the_largest_count_of_the_data() -> None:
    statistics = DataStatistics(mean=(0.0,), std=(1.0,), minimum=0, maximum=1.6e7)
    data = DataSpec(shape=(1, 2), domain="count", statistics=statistics)
    mean = PoissonLikelihood(Options(), data)(torch.full((1, 1, 2), 99.0)).mean
    assert (mean > 1.6e7).all()


def test_zeros_come_from_both_parts() -> None:
    """With θ predicted, the channels are the mean, the zeros, then θ."""
    options = DispersionOptions(dispersion_mode="predicted")
    model = ZeroInflatedNegativeBinomialLikelihood(options, DataSpec(shape=(1,), domain="count"))
    params = torch.tensor([[math.log(4.0), 0.7, math.log(3.0)]])
    zero = 1 / (1 + math.exp(-0.7))
    expected = [
        zero + (1 - zero) * stats.nbinom.pmf(0, 3, 3 / 7),
        (1 - zero) * stats.nbinom.pmf(5, 3, 3 / 7),
    ]
    found = [float(model(params).log_prob(torch.tensor([[x]])).exp()) for x in (0.0, 5.0)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert float(model(params).mean) == pytest.approx(4 * (1 - zero))
