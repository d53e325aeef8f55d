"""Densities: against scipy and torch, integrals, means, samples, gradients at the ends, scales."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vaezoo import DataSpec, Likelihood, Options
from vaezoo.data.spec import DataStatistics
from vaezoo.models.distributions import IsotropicNormal
from vaezoo_likelihoods.auto import auto_likelihood
from vaezoo_likelihoods.beta import BetaLikelihood, SqueezedBeta
from vaezoo_likelihoods.continuous_bernoulli import (
    ContinuousBernoulli,
    ContinuousBernoulliLikelihood,
)
from vaezoo_likelihoods.gaussian import GaussianScalesLikelihood, gaussian_learned
from vaezoo_likelihoods.laplace import LaplaceLikelihood
from vaezoo_likelihoods.options import LearnedScaleOptions, ScaleOptions, StudentTOptions
from vaezoo_likelihoods.student_t import StudentTLikelihood

stats = pytest.importorskip("scipy.stats")
integrate = pytest.importorskip("scipy.integrate")

UNIT = DataSpec(shape=(2, 3, 3))
STATISTICS = DataStatistics(mean=(5.0, -2.0), std=(3.0, 0.1), minimum=-9, maximum=99)
REAL = DataSpec(shape=(2, 3, 3), domain="real", statistics=STATISTICS)
LOCATION_SCALE = (GaussianScalesLikelihood, LaplaceLikelihood, StudentTLikelihood)
MODES = ("shared", "per_value", "predicted")
LOGITS = (-60.0, -5.0, -1.1, -0.9, -1e-2, -1e-6, 0.0, 1e-3, 0.5, 0.99, 1.01, 3.0, 40.0)


def options(mode: Any = "shared", scale: float = 0.3) -> StudentTOptions:
    return StudentTOptions(scale=scale, scale_mode=mode, degrees_of_freedom=4.0)


def of_value(distribution: Any, x: float) -> float:
    """The density of one value; distribution: of the shape [1, 1] in float64."""
    return math.exp(float(distribution.log_prob(torch.tensor([[x]], dtype=torch.float64))))


@pytest.mark.parametrize("logit", LOGITS)
def test_the_continuous_bernoulli_integrates_to_one_also_near_one_half(logit: float) -> None:
    distribution = ContinuousBernoulli(torch.tensor([[logit]], dtype=torch.float64))
    ends = {"points": [0.02, 0.98], "epsabs": 1e-13}
    mass, _ = integrate.quad(lambda x: of_value(distribution, x), 0, 1, **ends)
    assert mass == pytest.approx(1, abs=1e-10)
    mean, _ = integrate.quad(lambda x: x * of_value(distribution, x), 0, 1, **ends)
    assert float(distribution.mean) == pytest.approx(mean, abs=1e-10)
    single = ContinuousBernoulli(torch.tensor([[logit]]))
    x = torch.tensor([[0.7]])
    assert float(single.log_prob(x)) == pytest.approx(
        float(distribution.log_prob(x.double())), abs=1e-5
    )
    assert float(single.mean) == pytest.approx(mean, abs=1e-6)


def test_the_continuous_bernoulli_is_that_of_the_paper_and_not_a_bernoulli() -> None:
    """Loaiza-Ganem & Cunningham 2019, equations 5 to 8, in terms of λ."""
    for p in (0.1, 0.4, 0.9):
        constant = 2 * math.atanh(1 - 2 * p) / (1 - 2 * p)
        mean = p / (2 * p - 1) + 1 / (2 * math.atanh(1 - 2 * p))
        found = ContinuousBernoulli(torch.tensor([[math.log(p / (1 - p))]], dtype=torch.float64))
        assert of_value(found, 0.3) == pytest.approx(constant * p**0.3 * (1 - p) ** 0.7)
        assert float(found.mean) == pytest.approx(mean)


@pytest.mark.parametrize("logit", LOGITS)
def test_samples_of_the_continuous_bernoulli(logit: float) -> None:
    torch.manual_seed(0)
    draws = ContinuousBernoulli(torch.tensor([[logit]])).sample((4000,)).flatten().double()
    assert ((draws >= 0) & (draws <= 1)).all()

    def below(x: Any) -> Any:
        return x if logit == 0 else np.expm1(logit * x) / np.expm1(logit)

    assert stats.kstest(draws.numpy(), below).pvalue > 1e-4


@pytest.mark.parametrize(("mean", "precision"), [(0.5, 2.0), (0.0, 3.0), (0.97, 9.0), (1.0, 0.3)])
def test_the_beta_integrates_to_one_and_is_scipys(mean: float, precision: float) -> None:
    arguments = (torch.tensor([[v]], dtype=torch.float64) for v in (mean, precision))
    distribution = SqueezedBeta(*arguments)
    center = (255 * mean + 0.5) / 256
    expected = stats.beta(precision * center, precision * (1 - center))
    for x in (0.0, 1 / 255, 0.5, 1.0):
        density = expected.pdf((255 * x + 0.5) / 256) * 255 / 256
        assert of_value(distribution, x) == pytest.approx(density, rel=1e-8)
    assert float(distribution.mean) == mean
    assert (256 * expected.mean() - 0.5) / 255 == pytest.approx(mean)


def test_the_probabilities_of_levels_of_a_smooth_beta_sum_to_one() -> None:
    mean, precision = torch.full((256, 1), 0.4), torch.full((256, 1), 12.0)
    x = torch.arange(256.0)[:, None] / 255
    total = SqueezedBeta(mean, precision).log_prob(x).exp().sum() / 255
    assert float(total) == pytest.approx(1, abs=1e-4)


def test_a_sharp_beta_is_exact_in_float32() -> None:
    mean, precision = torch.full((9, 1), 0.3), torch.full((9, 1), 16_000.0)
    x = torch.linspace(0.29, 0.31, 9)[:, None]
    found = SqueezedBeta(mean, precision).log_prob(x)
    exact = SqueezedBeta(mean.double(), precision.double()).log_prob(x.double())
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-3)


def test_a_uniform_model_has_8_bits() -> None:
    x = torch.rand(4, 2, 3, 3)
    beta = BetaLikelihood(Options(), UNIT)
    nats = -beta(torch.zeros(4, *beta.param_shape)).log_prob(x)
    for value in nats.tolist():
        assert beta.bits_per_dim(value, UNIT) == pytest.approx(8, abs=1e-4)
    # On [0, 1], which is 255 levels wide; the two at the ends are half outside.
    uniform = ContinuousBernoulliLikelihood(Options(), UNIT)
    nats = -uniform(torch.zeros(4, 2, 3, 3)).log_prob(x)
    assert uniform.bits_per_dim(float(nats[0]), UNIT) == pytest.approx(math.log2(255), abs=1e-5)


@pytest.mark.parametrize("cls", LOCATION_SCALE)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("data", [UNIT, REAL], ids=["unit", "real"])
def test_a_location_scale_density_is_scipys(cls: Any, mode: str, data: DataSpec) -> None:
    """Of the data in its own units: standardising must not change it."""
    torch.manual_seed(0)
    model = cls(options(mode), data)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    params = torch.randn(4, *model.param_shape)
    distribution = model(params)
    loc, scale = model.loc_and_scale(params)
    if data.domain == "unit":
        torch.testing.assert_close(loc, torch.sigmoid(2 * params[:, :2]))
    x = torch.rand(4, 2, 3, 3)
    mean, std = (
        torch.tensor(v).view(2, 1, 1) if data.domain == "real" else torch.tensor(float(d))
        for v, d in ((STATISTICS.mean, 0), (STATISTICS.std, 1))
    )
    scipys = {
        GaussianScalesLikelihood: stats.norm.logpdf,
        LaplaceLikelihood: stats.laplace.logpdf,
        StudentTLikelihood: lambda value, at, by: stats.t.logpdf(value, 4, at, by),
    }[cls]
    raw = [t.detach().double() for t in (x * std + mean, loc * std + mean, scale * std)]
    expected = scipys(*(t.numpy() for t in raw)).reshape(4, -1).sum(1)
    np.testing.assert_allclose(distribution.log_prob(x).detach(), expected, rtol=2e-5, atol=2e-4)
    torch.testing.assert_close(distribution.mean, loc)


@pytest.mark.parametrize("cls", LOCATION_SCALE)
def test_a_learned_scale_is_one_parameter_one_for_each_value_or_the_decoders(cls: Any) -> None:
    shapes = {mode: cls(options(mode), UNIT) for mode in MODES}
    shared, each, predicted = (shapes[mode] for mode in MODES)
    assert shared.log_scale.shape == ()
    assert each.log_scale.shape == UNIT.shape
    assert isinstance(each.log_scale, nn.Parameter)
    assert not list(predicted.parameters())
    assert predicted.param_shape == (4, 3, 3)
    params = torch.zeros(1, 4, 3, 3)
    params[0, 3, 2, 2] = 1.0
    scale = predicted.loc_and_scale(params)[1]
    torch.testing.assert_close(scale[0, 1, 2, 2] - 1 / 256, torch.tensor(0.3 * math.e))
    torch.testing.assert_close(scale[0, 1, 2, 1] - 1 / 256, torch.tensor(0.3))


@pytest.mark.parametrize("mode", MODES)
def test_a_perfect_fit_does_not_make_the_density_infinite(mode: Any) -> None:
    model = gaussian_learned(LearnedScaleOptions(scale=0.1, scale_mode=mode), UNIT)
    raw = torch.randn(1, 2, 3, 3)
    x = (torch.tanh(raw) + 1) / 2
    params = raw if mode != "predicted" else torch.cat([raw, torch.full_like(raw, -60.0)], 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(-60.0)
    best = 18 * (math.log(256) - 0.5 * math.log(2 * math.pi))
    assert float(model(params).log_prob(x).detach()) == pytest.approx(best, rel=1e-4)


def test_the_best_scale_of_each_value_is_the_root_of_its_mean_squared_error() -> None:
    torch.manual_seed(0)
    data = DataSpec(shape=(3,), domain="real")
    model = gaussian_learned(LearnedScaleOptions(scale_mode="per_value"), data)
    x = torch.randn(400, 3) * torch.tensor([0.1, 1.0, 4.0])
    with torch.no_grad():
        model.log_scale.copy_((x.square().mean(0).sqrt() - 1 / 256).log())
    model(torch.zeros(400, 3)).log_prob(x).mean().backward()
    torch.testing.assert_close(model.log_scale.grad, torch.zeros(3), rtol=0, atol=1e-4)


def test_degrees_of_freedom_are_learned_above_1() -> None:
    data = DataSpec(shape=(3,), domain="real")
    model = StudentTLikelihood(
        StudentTOptions(degrees_of_freedom=1.5, learn_degrees_of_freedom=True), data
    )
    assert float(model.df.detach()) == pytest.approx(1.5)
    fixed = StudentTLikelihood(StudentTOptions(degrees_of_freedom=1e4), data)
    assert float(fixed.df) == pytest.approx(1e4)
    assert len(list(fixed.parameters())) == 1
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    torch.manual_seed(0)
    x = torch.randn(300, 3)
    for _ in range(150):
        optimizer.zero_grad()
        (-model(torch.zeros(300, 3)).log_prob(x)).mean().backward()
        optimizer.step()
    assert float(model.df.detach()) > 5  # the data is Gaussian


LIKELIHOODS: list[tuple[Any, Options, DataSpec]] = [
    *(
        (cls, options(mode), data)
        for cls in LOCATION_SCALE
        for mode in MODES
        for data in (UNIT, REAL)
    ),
    (BetaLikelihood, Options(), UNIT),
    (ContinuousBernoulliLikelihood, Options(), UNIT),
]


@pytest.mark.parametrize(("cls", "given", "data"), LIKELIHOODS)
def test_samples_have_the_distributions_mean(cls: Any, given: Options, data: DataSpec) -> None:
    torch.manual_seed(0)
    model = cls(given, data)
    distribution = model(torch.randn(2, *model.param_shape))
    draws = distribution.sample((4000,))
    assert draws.shape == (4000, 2, *data.shape)
    assert not draws.requires_grad
    error = draws.std(0) / math.sqrt(4000)
    # Samples of the beta beyond the ends, by half a level at most, are clamped.
    slack = 1e-3 if cls is BetaLikelihood else 0
    assert ((draws.mean(0) - distribution.mean).abs() < 5 * error + slack).all()
    assert distribution.log_prob(draws[:3]).shape == (3, 2)
    if data.domain == "unit":
        assert ((distribution.mean >= 0) & (distribution.mean <= 1)).all()


@pytest.mark.parametrize(("cls", "given", "data"), LIKELIHOODS)
def test_gradients_are_those_of_finite_differences(
    cls: Any, given: Options, data: DataSpec
) -> None:
    torch.manual_seed(2)
    model = cls(given, data).double()
    params = torch.randn(1, *model.param_shape, dtype=torch.float64, requires_grad=True)
    x = torch.rand(1, *data.shape, dtype=torch.float64)
    x[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    assert torch.autograd.gradcheck(lambda p: model(p).log_prob(x), (params,))
    assert torch.autograd.gradcheck(lambda p: model(p).mean, (params,))


@pytest.mark.parametrize(("cls", "given", "data"), LIKELIHOODS)
@pytest.mark.parametrize("raw", [-500.0, 0.0, 500.0])
def test_values_and_gradients_are_finite_at_the_ends(
    cls: Any, given: Options, data: DataSpec, raw: float
) -> None:
    model = cls(given, data)
    for value in (0.0, 0.5, 1.0):
        params = torch.full((1, *model.param_shape), raw, requires_grad=True)
        log_prob = model(params).log_prob(torch.full((1, *data.shape), value))
        log_prob.sum().backward()
        assert log_prob.isfinite().all()
        assert params.grad is not None
        assert params.grad.isfinite().all()


def test_one_shared_scale_is_the_isotropic_normal() -> None:
    given = LearnedScaleOptions(scale=0.3)
    params, x = torch.randn(2, 2, 3, 3), torch.rand(2, 2, 3, 3)
    for data in (UNIT, REAL):
        found = gaussian_learned(given, data)(params)
        mean = params if data.domain == "real" else (torch.tanh(params) + 1) / 2
        expected = IsotropicNormal(mean, torch.tensor(math.log(0.3)).exp(), 3, data.log_det)
        assert found.log_prob(x).equal(expected.log_prob(x))


@pytest.mark.parametrize(
    ("domain", "name"),
    [
        ("binary", "BernoulliLikelihood"),
        ("unit", "GaussianLikelihood"),
        ("real", "GaussianLikelihood"),
        ("count", "NegativeBinomialLikelihood"),
    ],
)
def test_auto_follows_the_domain(domain: Any, name: str) -> None:
    model = auto_likelihood(ScaleOptions(scale=0.7), DataSpec(shape=(4,), domain=domain))
    assert type(model).__name__ == name
    if name == "GaussianLikelihood":
        assert isinstance(model.log_scale, nn.Parameter)
        assert float(model.log_scale.detach().exp()) == pytest.approx(0.7)


def all_likelihoods() -> list[Likelihood]:
    return [cls(given, data) for cls, given, data in LIKELIHOODS]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_full(dtype: torch.dtype) -> None:
    for model in all_likelihoods():
        params = torch.randn(2, *model.param_shape).to(dtype)
        x: Tensor = torch.rand(2, 2, 3, 3)
        distribution = model(params)
        assert distribution.mean.dtype == torch.float32
        assert distribution.log_prob(x).dtype == torch.float32
        torch.testing.assert_close(distribution.log_prob(x), model(params.float()).log_prob(x))


def test_samples_have_the_tails_of_students_t() -> None:
    torch.manual_seed(0)
    model = StudentTLikelihood(options(scale=0.5), DataSpec(shape=(2,), domain="real"))
    draws = model(torch.tensor([[1.0, -3.0]])).sample((4000,))[:, 0].double().numpy()
    for column, loc in zip(draws.T, (1.0, -3.0), strict=True):
        assert stats.kstest(column, stats.t(4, loc, 0.5).cdf).pvalue > 1e-4
