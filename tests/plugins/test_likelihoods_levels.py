"""Likelihoods of 256 levels: probabilities, means, samples and gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vaezoo import DataSpec, Likelihood, Options
from vaezoo_likelihoods.categorical import CategoricalLevels, CategoricalLikelihood
from vaezoo_likelihoods.discretized_logistic import (
    DiscretizedLogistic,
    DiscretizedLogisticLikelihood,
)
from vaezoo_likelihoods.discretized_logistic_mixture import (
    DiscretizedLogisticMixture,
    DiscretizedLogisticMixtureLikelihood,
)
from vaezoo_likelihoods.options import LearnedScaleOptions, MixtureOptions

stats = pytest.importorskip("scipy.stats")

LEVELS = torch.arange(256.0) / 255


def probabilities(loc: float, scale: float) -> Tensor:
    """Of all levels. loc, scale: of a logistic where values span [0, 1]."""
    locs = torch.full((256, 1), 2 * loc - 1, dtype=torch.float64)
    log_scale = torch.tensor(math.log(2 * scale), dtype=torch.float64)
    return DiscretizedLogistic(locs, log_scale).log_prob(LEVELS.double()[:, None]).exp()


@pytest.mark.parametrize("loc", [-0.4, 0.0, 0.3, 0.50001, 1.0, 1.7])
@pytest.mark.parametrize("scale", [1e-3, 0.01, 0.2, 5.0])
def test_a_discretized_logistic_has_the_probabilities_of_its_bins(loc: float, scale: float) -> None:
    found = probabilities(loc, scale)
    edges = (np.arange(255) + 0.5) / 255
    below = np.concatenate(([0.0], stats.logistic.cdf(edges, loc, scale), [1.0]))
    np.testing.assert_allclose(found.numpy(), np.diff(below), rtol=1e-6, atol=1e-14)
    assert float(found.sum()) == pytest.approx(1, abs=1e-12)


def test_the_mean_of_a_discretized_logistic() -> None:
    for scale in (1e-3, 1 / 255, 0.03, 0.5):
        for loc in (-0.2, 0.0, 0.4, 0.998, 1.3):
            exact = float((probabilities(loc, scale) * LEVELS).sum())
            log_scale = torch.tensor(math.log(2 * scale))
            mean = float(DiscretizedLogistic(torch.tensor([[2 * loc - 1]]), log_scale).mean)
            assert mean == pytest.approx(exact, abs=0.5 / 255 if scale < 1 / 255 else 1e-4)


def test_far_from_its_location_no_probability_is_rounded_to_0() -> None:
    loc = torch.full((256, 1), -1.0, requires_grad=True)
    log_scale = torch.full((256, 1), -6.9, requires_grad=True)
    log_probs = DiscretizedLogistic(loc, log_scale).log_prob(LEVELS[:, None])
    assert log_probs.isfinite().all()
    assert log_probs[0] > -0.03
    # a straight line: each level further away costs the width of a level
    steps = log_probs[2:-1].diff()
    expected = torch.full_like(steps, -2 / 255 * math.exp(6.9))
    torch.testing.assert_close(steps, expected, rtol=1e-4, atol=0)
    log_probs.sum().backward()
    for grad in (loc.grad, log_scale.grad):
        assert grad is not None
        assert grad.isfinite().all()
        assert (grad[1:] != 0).all()


def mixture(channels: int, levels: int, batch: int, *, coupled: bool) -> DiscretizedLogisticMixture:
    torch.manual_seed(3)
    logits, loc, log_scale, coefficients = (
        torch.randn(1, 4, n, 1, 1, dtype=torch.float64).expand(batch, -1, -1, -1, -1)
        for n in (1 if coupled else channels, channels, channels, channels)
    )
    dependence = torch.tanh(coefficients) if coupled else None
    return DiscretizedLogisticMixture(logits, loc, log_scale - 1, dependence, levels)


def test_the_mixture_sums_to_one_over_all_colours() -> None:
    grid = torch.cartesian_prod(*[torch.arange(12.0) / 11] * 3).double().view(-1, 3, 1, 1)
    joint = mixture(3, 12, len(grid), coupled=True).log_prob(grid).exp()
    assert float(joint.sum()) == pytest.approx(1, abs=1e-10)
    # the channels depend on one another
    table = joint.view(12, 12, 12)
    product = table.sum((1, 2))[:, None, None] * table.sum((0, 2))[:, None] * table.sum((0, 1))
    assert float((table - product).abs().sum()) > 0.05


def test_the_mixture_of_other_channels_is_a_product() -> None:
    levels = torch.arange(256.0).double() / 255
    values = levels[:, None, None, None].expand(-1, 2, 1, 1)
    per_channel = []
    for channel in range(2):
        fixed = torch.where(torch.arange(2).view(2, 1, 1) == channel, values, levels[7])
        per_channel.append(mixture(2, 256, 256, coupled=False).log_prob(fixed).exp().sum())
    both = mixture(2, 256, 1, coupled=False).log_prob(levels[7].expand(1, 2, 1, 1)).exp()
    # sum over channel 0 is p(channel 1 = level 7), and the other way round
    assert float(per_channel[0] * per_channel[1]) == pytest.approx(float(both), rel=1e-10)


def test_the_mixture_is_that_of_the_paper() -> None:
    """Salimans et al. 2017, section 2.2, written out: the channels share the component."""
    torch.manual_seed(0)
    weights = [0.3, 0.7]
    loc, log_scale, c = torch.randn(2, 3) / 2, torch.randn(2, 3) - 2, torch.rand(2, 3) - 0.5
    x = torch.tensor([51.0, 204.0, 0.0]) / 255
    red, green, _ = (2 * x - 1).tolist()
    expected = 0.0
    for k, weight in enumerate(weights):
        shift = torch.tensor([0.0, c[k, 0] * red, c[k, 1] * red + c[k, 2] * green])
        at, by = (loc[k] + shift).tolist(), log_scale[k].exp().tolist()
        joint = weight
        for value, mu, s in zip(x.tolist(), at, by, strict=True):
            upper = 1.0 if value == 1 else stats.logistic.cdf(2 * value - 1 + 1 / 255, mu, s)
            lower = 0.0 if value == 0 else stats.logistic.cdf(2 * value - 1 - 1 / 255, mu, s)
            joint *= upper - lower
        expected += joint
    shape = (1, 2, 3, 1, 1)
    logits = torch.tensor(weights).log().view(1, 2, 1, 1, 1) + 5
    found = DiscretizedLogisticMixture(
        logits, loc.view(shape), log_scale.view(shape), c.view(shape)
    ).log_prob(x.view(1, 3, 1, 1))
    assert float(found) == pytest.approx(math.log(expected), rel=1e-4)


def likelihood(name: str, shape: tuple[int, ...]) -> Likelihood:
    data = DataSpec(shape=shape)
    return {
        "categorical": lambda: CategoricalLikelihood(Options(), data),
        "logistic": lambda: DiscretizedLogisticLikelihood(
            LearnedScaleOptions(scale_mode="predicted"), data
        ),
        "mixture": lambda: DiscretizedLogisticMixtureLikelihood(MixtureOptions(mixtures=5), data),
    }[name]()


NAMES = ("categorical", "logistic", "mixture")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 2, 2), (3, 2, 2), (4,), (2, 5)])
def test_samples_are_levels_with_the_distributions_mean(name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = likelihood(name, shape)
    distribution = model(0.5 * torch.randn(2, *model.param_shape))
    draws = distribution.sample((4000,))
    assert draws.shape == (4000, 2, *shape)
    torch.testing.assert_close((draws * 255).round() / 255, draws)
    assert (draws.min(), draws.max()) == (0, 1) or name == "categorical"
    error = draws.std(0) / math.sqrt(4000)
    # For colours the mean is exact up to values that are clamped at the ends.
    slack = 0.03 if name == "mixture" and shape == (3, 2, 2) else 1e-3
    assert ((draws.mean(0) - distribution.mean).abs() < 5 * error + slack).all()
    assert distribution.log_prob(draws[:5]).shape == (5, 2)


def test_the_coupled_mean_is_exact_away_from_the_ends() -> None:
    torch.manual_seed(0)
    shape = (1, 2, 3, 1, 1)
    distribution = DiscretizedLogisticMixture(
        torch.tensor([0.3, -0.2]).view(1, 2, 1, 1, 1),
        torch.tensor([[0.4, 0.1, -0.2], [-0.3, 0.2, 0.1]]).view(shape),
        torch.full(shape, -4.0),
        torch.tensor([[0.9, -0.8, 0.7], [-0.6, 0.5, 0.9]]).view(shape),
    )
    draws = distribution.sample((20_000,))
    error = draws.std(0) / math.sqrt(20_000)
    assert ((draws.mean(0) - distribution.mean).abs() < 5 * error).all()
    # Frequencies of a sample are its probabilities.
    probability = distribution.log_prob(draws[:200].flatten(0, 1).unsqueeze(1)).exp()
    entropy = -probability.log().mean()
    assert 0 < float(entropy) < 3 * math.log(256)


@pytest.mark.parametrize("name", NAMES)
def test_samples_have_their_probabilities(name: str) -> None:
    """Frequencies of the levels of one value, by a chi-squared test over groups of levels."""
    torch.manual_seed(1)
    model = likelihood(name, (1,))
    params = torch.randn(1, *model.param_shape)
    distribution = model(params)
    log_probs = model(params.expand(256, -1)).log_prob(LEVELS[:, None])
    expected = log_probs.exp().view(32, 8).sum(1)
    draws = distribution.sample((20_000,)).flatten()
    counts = torch.bincount((draws * 255).round().long() // 8, minlength=32)
    used = expected * 20_000 > 5
    statistic = float(((counts - expected * 20_000).square() / (expected * 20_000))[used].sum())
    assert stats.chi2.sf(statistic, int(used.sum()) - 1) > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    torch.manual_seed(2)
    model = likelihood(name, (3, 1, 2)).double()
    params = torch.randn(2, *model.param_shape, dtype=torch.float64, requires_grad=True)
    x = (
        torch.tensor([0.0, 1, 17, 254, 255, 128]).double().view(1, 3, 1, 2).expand(2, -1, -1, -1)
        / 255
    )
    assert torch.autograd.gradcheck(lambda p: model(p).log_prob(x), (params,))
    if name != "logistic":
        return
    assert torch.autograd.gradcheck(lambda p: model(p).mean, (params,))


def test_a_uniform_model_has_8_bits() -> None:
    x = torch.rand(5, 3, 4, 4)
    data = DataSpec(shape=(3, 4, 4))
    model = CategoricalLikelihood(Options(), data)
    nats = -model(torch.zeros(5, *model.param_shape)).log_prob(x).mean()
    assert model.bits_per_dim(float(nats), data) == pytest.approx(8, abs=1e-5)
    # One value above the uniform: a scale far above the range leaves nearly all to the two ends.
    wide = likelihood("logistic", (3, 4, 4))
    params = torch.cat([torch.zeros(5, 3, 4, 4), torch.full((5, 3, 4, 4), 9.0)], 1)
    ends = wide(params).log_prob(torch.zeros(5, 3, 4, 4)).mean()
    assert wide.bits_per_dim(-float(ends), data) == pytest.approx(1, abs=0.01)


def test_a_categorical_is_torchs() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 16, 4, 5)
    x = torch.randint(0, 16, (2, 3, 4, 5))
    expected = torch.distributions.Categorical(logits=logits.movedim(2, -1))
    found = CategoricalLevels(logits)
    torch.testing.assert_close(found.log_prob(x / 15), expected.log_prob(x).flatten(1).sum(1))
    torch.testing.assert_close(found.mean, (expected.probs * torch.arange(16) / 15).sum(-1))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(3, 4, 4), (2, 6), (3, 2, 2, 2)])
def test_each_value_has_parameters_of_its_own(name: str, shape: tuple[int, ...]) -> None:
    """The gradient of one value's log-probability reaches the parameters at its place alone."""
    model = likelihood(name, shape)
    torch.manual_seed(0)
    params = torch.randn(1, *model.param_shape, requires_grad=True)
    position = tuple(n - 1 for n in shape)
    x = torch.full((1, *shape), 0.5)
    other = x.clone()
    other[(0, *position)] = 0.9
    (model(params).log_prob(other) - model(params).log_prob(x)).sum().backward()
    assert params.grad is not None
    reached = (params.grad[0] != 0).flatten(1)
    assert not reached[:, :-1].any()
    # All of one value, and for colours also those of the channels that it depends on.
    per_value = {"categorical": 2, "logistic": 2, "mixture": 15}[name]
    assert int(reached[:, -1].sum()) >= per_value
    if name != "mixture" or model.param_shape[0] != 50:
        assert int(reached[:, -1].sum()) == per_value


@pytest.mark.parametrize("mode", ["shared", "per_value", "predicted"])
def test_the_scale_is_in_units_of_the_range_0_to_1(mode: Any) -> None:
    options = LearnedScaleOptions(scale=0.07, scale_mode=mode)
    model = DiscretizedLogisticLikelihood(options, DataSpec(shape=(1,)))
    params = torch.zeros(256, *model.param_shape)
    params[:, 0] = 2 * 0.3 - 1
    found = model(params).log_prob(LEVELS[:, None]).exp().detach()
    torch.testing.assert_close(found.double(), probabilities(0.3, 0.07), rtol=1e-4, atol=1e-9)
