"""The von Mises–Fisher distribution: density, draws, their gradients, and its KL to the uniform."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import pytest
import torch
from torch import Tensor

from vaezoo import DataSpec, EncoderDecoderVAE, create_model
from vaezoo.errors import OptionError
from vaezoo.models.distributions import kl_divergence, mode
from vaezoo_latents.sphere import SphereUniform, VonMisesFisher
from vaezoo_latents.vmf import SphericalBottleneck

DIMENSIONS = (2, 3, 5, 20, 200)


def vmf(m: int, *concentrations: float, dtype: torch.dtype = torch.float64) -> VonMisesFisher:
    loc = torch.randn(len(concentrations), m, generator=torch.manual_seed(m), dtype=dtype)
    loc = torch.nn.functional.normalize(loc, dim=-1)
    return VonMisesFisher(loc, torch.tensor(concentrations, dtype=dtype))


def uniform(m: int) -> SphereUniform:
    return SphereUniform(m, like=torch.zeros((), dtype=torch.float64))


def cosines(q: VonMisesFisher, count: int) -> Tensor:
    torch.manual_seed(0)
    return (q.rsample((count,)) * q.loc).sum(-1)


class TestDensity:
    @pytest.mark.parametrize("concentration", [1e-3, 1.0, 20.0, 3e3])
    def test_integrates_to_one_on_the_circle(self, concentration: float) -> None:
        q = vmf(2, concentration)
        angle = torch.linspace(0, 2 * math.pi, 40_001, dtype=torch.float64)[:-1]
        circle = torch.stack([angle.cos(), angle.sin()], -1)[:, None]
        mass = q.log_prob(circle).exp().sum() * 2 * math.pi / 40_000
        assert mass.item() == pytest.approx(1, abs=1e-7)

    @pytest.mark.parametrize("concentration", [1e-3, 1.0, 20.0, 3e3])
    def test_on_the_globe_it_is_fishers(self, concentration: float) -> None:
        """κ exp(κ μ·z) / (4π sinh κ) (Fisher 1953)."""
        q, z = vmf(3, concentration), vmf(3, 1.0).sample((50,))
        log_sinh = concentration + math.log(-math.expm1(-2 * concentration) / 2)
        constant = math.log(concentration / (4 * math.pi)) - log_sinh
        by_hand = constant + concentration * (z * q.loc).sum(-1)
        assert torch.allclose(q.log_prob(z), by_hand, rtol=0, atol=1e-6)

    @pytest.mark.parametrize("m", DIMENSIONS)
    def test_is_normalised_in_any_dimension(self, m: int) -> None:
        """The mean over uniform points of density times area, where they reach its mass."""
        q = vmf(m, 0.5, 3.0)
        torch.manual_seed(0)
        z = uniform(m).sample((40_000, 1))
        ratio = (q.log_prob(z) - uniform(m).log_prob(z)).exp()
        error = 5 * ratio.std(0) / len(z) ** 0.5
        assert ((ratio.mean(0) - 1).abs() < error).all()

    @pytest.mark.parametrize(
        ("m", "area"), [(2, 2 * math.pi), (3, 4 * math.pi), (4, 2 * math.pi**2)]
    )
    def test_uniform_is_one_over_the_area(self, m: int, area: float) -> None:
        z = uniform(m).sample((4,))
        assert torch.allclose(uniform(m).log_prob(z), torch.tensor(-math.log(area)).double())
        nearly = vmf(m, 1e-9).log_prob(z)
        assert torch.allclose(nearly, uniform(m).log_prob(z), rtol=0, atol=1e-8)

    def test_single_precision_is_enough_where_it_is_sharp(self) -> None:
        q = vmf(10, 1e4, dtype=torch.float32)
        z = q.sample((200,))
        sharp = VonMisesFisher(q.loc.double(), q.concentration.double())
        assert q.log_prob(z).dtype == torch.float32
        assert torch.allclose(q.log_prob(z).double(), sharp.log_prob(z.double()), atol=1e-2)


class TestDraws:
    @pytest.mark.parametrize("m", DIMENSIONS)
    def test_lie_on_the_sphere_and_have_the_mean_and_spread(self, m: int) -> None:
        q = vmf(m, 0.1, 2.0, 50.0, 5e3)
        torch.manual_seed(0)
        z = q.sample((8_000,))
        assert z.shape == (8_000, 4, m)
        assert torch.allclose(z.norm(dim=-1), torch.ones(1).double(), atol=1e-9)
        error = 5 * z.std(0) / len(z) ** 0.5 + 1e-9
        assert ((z.mean(0) - q.mean).abs() < error).all()
        w = (z * q.loc).sum(-1)
        ratio, kappa = q.mean_cosine, q.concentration
        variance = 1 - ratio.square() - (m - 1) * ratio / kappa
        assert torch.allclose(w.var(0), variance, rtol=0.1)

    @pytest.mark.parametrize("m", DIMENSIONS)
    def test_have_the_distribution_of_the_density(self, m: int) -> None:
        """Kolmogorov and Smirnov's distance of the cosines to the density's integral."""
        q = vmf(m, 0.1, 4.0, 300.0)
        w = cosines(q, 8_000).sort(0).values
        for i, kappa in enumerate((0.1, 4.0, 300.0)):
            angle = torch.linspace(0, math.pi, 100_001, dtype=torch.float64)
            log = kappa * (angle.cos() - 1) + (m - 2) * angle.sin().clamp(min=1e-300).log()
            below = torch.cumulative_trapezoid((log - log.max()).exp())
            below = below / below[-1]
            at = torch.searchsorted(angle, torch.acos(w[:, i].clamp(-1, 1))).clamp(1, 100_000)
            expected = 1 - below[at - 1]
            ranks = (torch.arange(8_000, dtype=torch.float64) + 0.5) / 8_000
            assert (expected - ranks).abs().max() < 1.95 / 8_000**0.5  # one time in a thousand

    def test_go_in_every_direction_across(self) -> None:
        q = vmf(4, 3.0)
        torch.manual_seed(0)
        z = q.sample((40_000,))[:, 0]
        across = z - (z @ q.loc[0])[:, None] * q.loc[0]
        across = across / across.norm(dim=-1, keepdim=True)
        expected = (torch.eye(4).double() - q.loc[0].outer(q.loc[0])) / 3
        assert torch.allclose(across.T @ across / len(z), expected, rtol=0, atol=0.015)

    def test_uniform_draws_are_uniform(self) -> None:
        torch.manual_seed(0)
        z = uniform(5).sample((40_000,))
        assert torch.allclose(z.norm(dim=-1), torch.ones(1).double())
        assert (z.mean(0).abs() < 0.012).all()
        assert torch.allclose(z.T @ z / len(z), torch.eye(5).double() / 5, rtol=0, atol=0.01)


class TestGradients:
    @pytest.mark.parametrize("m", DIMENSIONS)
    @pytest.mark.parametrize("kappa", [0.01, 1.0, 10.0, 200.0, 1e4])
    def test_of_a_draw_are_those_of_its_quantile(self, m: int, kappa: float) -> None:
        """dw/dκ = −(∂F/∂κ) / f, with both integrals taken by mpmath."""
        loc = torch.eye(m, dtype=torch.float64)[:1]
        concentration = torch.tensor([kappa], dtype=torch.float64, requires_grad=True)
        q = VonMisesFisher(loc, concentration)
        mean = q.mean_cosine.item()
        torch.manual_seed(1)
        for _ in range(6):
            w = q.rsample()[0, 0]
            (slope,) = torch.autograd.grad(w, concentration, retain_graph=True)
            theta = mpmath.acos(mpmath.mpf(w.item()))

            def integrand(phi: Any, theta: Any = theta) -> Any:
                log = kappa * (mpmath.cos(phi) - mpmath.cos(theta))
                ratio = (mpmath.sin(phi) / mpmath.sin(theta)) ** (m - 2)
                return (mpmath.cos(phi) - mean) * mpmath.exp(log) * ratio

            places = mpmath.linspace(0, theta, 9)
            if w < mean:
                places = [theta + (mpmath.pi - theta) * (2**-i) for i in range(14, -1, -1)]
                places = [theta, *places]
            area = mpmath.quad(integrand, places) * mpmath.sin(theta)
            expected = float(area if w >= mean else -area)
            assert slope.item() == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("m", DIMENSIONS)
    def test_of_expectations_are_those_of_the_closed_forms(self, m: int) -> None:
        """E[w] = A and its derivative; and of E[w²] = 1 − (m − 1) A / κ."""
        start = torch.tensor([0.3, 3.0, 60.0], dtype=torch.float64)
        loc = vmf(m, 1.0, 1.0, 1.0).loc
        # Each draw has a concentration of its own, and so a gradient of its own.
        kappa = start.expand(8_000, 3).clone().requires_grad_()
        torch.manual_seed(0)
        w = (VonMisesFisher(loc.expand(8_000, 3, m), kappa).rsample() * loc).sum(-1)
        start.requires_grad_()
        mean = VonMisesFisher(loc, start).mean_cosine
        for drawn, closed in ((w, mean), (w.square(), 1 - (m - 1) * mean / start)):
            (each,) = torch.autograd.grad(drawn.sum(), kappa, retain_graph=True)
            (expected,) = torch.autograd.grad(closed.sum(), start, retain_graph=True)
            error = 5 * each.std(0) / 8_000**0.5
            assert ((each.mean(0) - expected).abs() < error).all()

    def test_by_the_mean_direction_are_those_of_its_rotation(self) -> None:
        """E[a·z] = A a·μ: the gradient by an unnormalised μ is A times that of a·μ."""
        raw = torch.tensor([[1.0, -2.0, 0.5, 0.3]], dtype=torch.float64, requires_grad=True)
        a = torch.tensor([0.2, 1.0, -1.0, 2.0], dtype=torch.float64)
        q = VonMisesFisher(torch.nn.functional.normalize(raw, dim=-1), torch.tensor([5.0]).double())
        torch.manual_seed(0)
        (drawn,) = torch.autograd.grad((q.rsample((40_000,)) @ a).mean(), raw, retain_graph=True)
        (closed,) = torch.autograd.grad((q.mean @ a).sum(), raw)
        assert torch.allclose(drawn, closed, rtol=0, atol=8e-3)

    def test_are_not_asked_for_where_nothing_learns(self) -> None:
        assert not vmf(5, 3.0).rsample().requires_grad
        with torch.no_grad():
            q = VonMisesFisher(vmf(5, 3.0).loc, torch.tensor([3.0]).double().requires_grad_())
            assert not q.rsample().requires_grad

    @pytest.mark.parametrize("m", [2, 3, 64])
    def test_stay_finite_in_single_precision(self, m: int) -> None:
        kappa = torch.tensor([1e-4, 1.0, 1e3, 1e6], requires_grad=True)
        q = VonMisesFisher(vmf(m, 1.0, 1.0, 1.0, 1.0, dtype=torch.float32).loc, kappa)
        z = q.rsample((500,))
        assert z.dtype == torch.float32
        (gradient,) = torch.autograd.grad(z.square().sum() + q.log_prob(z).sum() + z.sum(), kappa)
        assert gradient.isfinite().all()


class TestRate:
    @pytest.mark.parametrize("m", [2, 3, 10, 41, 128, 1000])
    def test_is_the_closed_form_of_mpmath(self, m: int) -> None:
        concentrations = (1e-4, 0.1, 1.0, 12.0, 100.0, 1e3, 1e5)
        q = vmf(m, *concentrations)
        rates = kl_divergence(q, uniform(m), q.loc)
        with mpmath.workdps(50):
            half = mpmath.mpf(m) / 2
            for rate, kappa in zip(rates.tolist(), map(mpmath.mpf, concentrations), strict=True):
                below = mpmath.besseli(half - 1, kappa)
                log_c = (half - 1) * mpmath.log(kappa) - half * mpmath.log(2 * mpmath.pi)
                log_c -= mpmath.log(below)
                log_area = mpmath.log(2 * mpmath.pi**half / mpmath.gamma(half))
                exact = kappa * mpmath.besseli(half, kappa) / below + log_c + log_area
                assert rate == pytest.approx(float(exact), rel=1e-6)

    @pytest.mark.parametrize("m", DIMENSIONS)
    def test_is_the_mean_of_the_log_ratio(self, m: int) -> None:
        q, p = vmf(m, 0.2, 3.0, 500.0), uniform(m)
        torch.manual_seed(0)
        z = q.sample((8_000,))
        ratio = q.log_prob(z) - p.log_prob(z)
        error = 5 * ratio.std(0) / len(z) ** 0.5
        assert ((ratio.mean(0) - kl_divergence(q, p, z)).abs() < error).all()

    @pytest.mark.parametrize("m", [2, 10, 500])
    def test_vanishes_with_the_concentration_and_as_it_should(self, m: int) -> None:
        q = vmf(m, 0.0, 1e-6, 1e-3)
        rates = kl_divergence(q, uniform(m), q.loc)
        assert rates[0].item() == 0
        # κ A − Λ = κ²/m − κ²/2m + …
        assert torch.allclose(rates, q.concentration.square() / (2 * m), rtol=1e-3, atol=1e-15)

    def test_grows_with_the_concentration_and_has_its_gradient(self) -> None:
        kappa = torch.tensor([0.5, 5.0, 50.0, 5e3], dtype=torch.float64, requires_grad=True)
        q = VonMisesFisher(vmf(12, *[1.0] * 4).loc, kappa)
        rate = kl_divergence(q, uniform(12), q.loc)
        (slope,) = torch.autograd.grad(rate.sum(), kappa)
        step = 1e-4 * kappa.detach()
        ends = [
            kl_divergence(VonMisesFisher(q.loc, kappa.detach() + sign * step), uniform(12), q.loc)
            for sign in (1, -1)
        ]
        assert (slope > 0).all()
        assert torch.allclose(slope, (ends[0] - ends[1]) / (2 * step), rtol=1e-5)


def model(**options: Any) -> EncoderDecoderVAE:
    torch.manual_seed(0)
    data = DataSpec(shape=(6,), domain="real")
    built = create_model("vmf_vae", data, network="mlp", hidden=(8,), latent_dim=5, **options)
    assert isinstance(built.bottleneck, SphericalBottleneck)
    return built


def test_the_posterior_is_on_the_sphere_with_a_concentration_above_one() -> None:
    q = model().encode(50 * torch.randn(20, 6))
    assert torch.allclose(q.loc.norm(dim=-1), torch.ones(20))
    assert (q.concentration >= 1).all()
    assert mode(q).equal(q.loc)


def test_a_temperature_is_refused_in_one_line() -> None:
    assert model().sample(3).shape == (3, 6)
    with pytest.raises(OptionError, match=r"^--temperature 0\.5: this model's prior has no spread"):
        model().sample(3, temperature=0.5)


def test_a_latent_of_one_number_is_refused() -> None:
    data = DataSpec(shape=(6,), domain="real")
    with pytest.raises(OptionError, match="latent_dim: should be greater than or equal to 2"):
        create_model("vmf_vae", data, network="mlp", latent_dim=1)


def test_the_last_feature_is_the_concentration_and_the_others_the_direction() -> None:
    model = create_model("vmf_vae", (1, 8, 8), latent_dim=3, hidden=(4,))
    features = torch.tensor([[3.0, 0.0, 4.0, -2.0], [0.0, -5.0, 0.0, 7.0]])
    model.encoder = torch.nn.Identity()
    posterior = model.encode(features)
    assert torch.allclose(posterior.loc, torch.tensor([[0.6, 0.0, 0.8], [0.0, -1.0, 0.0]]))
    assert torch.allclose(posterior.concentration, 1 + torch.tensor([-2.0, 7.0]).exp().log1p())
