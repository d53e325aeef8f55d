"""maf, nsf, two_stage and hypersphere: exact densities, and recovery of known distributions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from vaezoo import LatentSpec, Sampler
from vaezoo.options import Options
from vaezoo_samplers.hypersphere import HypersphereSampler
from vaezoo_samplers.options import FlowOptions, SplineOptions, TwoStageOptions
from vaezoo_samplers.two_stage import TwoStageSampler

COVARIANCE = torch.tensor([[4.0, 3.0], [3.0, 9.0]])
MEAN = torch.tensor([10.0, -5.0])


def gaussian(n: int = 5000) -> Tensor:
    torch.manual_seed(0)
    return MultivariateNormal(MEAN, COVARIANCE).sample(torch.Size((n,)))


def maf(shape: tuple[int, ...] = (2,), **options: Any) -> Sampler:
    pytest.importorskip("zuko")
    from vaezoo_samplers.flows import masked_autoregressive

    torch.manual_seed(0)
    small: dict[str, Any] = {"steps": 250, "hidden": (32,), "transforms": 2, "lr": 5e-3}
    return masked_autoregressive(FlowOptions(**{**small, **options}), LatentSpec(shape))


def nsf(shape: tuple[int, ...] = (2,), **options: Any) -> Sampler:
    pytest.importorskip("zuko")
    from vaezoo_samplers.flows import neural_spline

    torch.manual_seed(0)
    small: dict[str, Any] = {"steps": 250, "hidden": (32,), "transforms": 2, "lr": 5e-3}
    return neural_spline(SplineOptions(**{**small, **options}), LatentSpec(shape))


def two_stage(shape: tuple[int, ...] = (2,), **options: Any) -> Sampler:
    torch.manual_seed(0)
    small: dict[str, Any] = {"steps": 600, "hidden": (32,), "lr": 5e-3}
    return TwoStageSampler(TwoStageOptions(**{**small, **options}), LatentSpec(shape))


def hypersphere(shape: tuple[int, ...] = (2,)) -> Sampler:
    return HypersphereSampler(Options(), LatentSpec(shape))


Make = Callable[..., Sampler]
FLOWS = pytest.mark.parametrize("make", [maf, nsf])
ALL = pytest.mark.parametrize("make", [maf, nsf, two_stage, hypersphere])


def fitted(sampler: Sampler, z: Tensor) -> Sampler:
    torch.manual_seed(1)
    sampler.fit(z)
    return sampler.eval()


def draw(sampler: Sampler, n: int) -> Tensor:
    torch.manual_seed(2)
    return sampler.distribution().sample(torch.Size((n,)))


@FLOWS
def test_the_density_of_a_gaussian(make: Make) -> None:
    """KL(data ‖ flow) = E[log p - log q] is near 0; without the correlation it is 0.14 nats."""
    z, sampler = gaussian(), fitted(make(), gaussian())
    test = MultivariateNormal(MEAN, COVARIANCE).sample(torch.Size((4000,)))
    with torch.no_grad():
        gap = MultivariateNormal(MEAN, COVARIANCE).log_prob(test)
        gap -= sampler.distribution().log_prob(test)
    assert abs(float(gap.mean())) < 0.05
    assert z.shape == (5000, 2)


@pytest.mark.parametrize("make", [maf, nsf, hypersphere])
def test_the_density_integrates_to_one(make: Make) -> None:
    """On a grid of cells of half a unit, over a data set far from the standard Gaussian."""
    sampler = fitted(make(), gaussian())
    x, y = torch.arange(-10, 30, 0.25), torch.arange(-35, 25, 0.25)
    cells = torch.cartesian_prod(x, y)
    with torch.no_grad():
        mass = sampler.distribution().log_prob(cells).exp().sum() * 0.25**2
    assert float(mass) == pytest.approx(1, abs=0.02)


@FLOWS
def test_latents_in_other_units(make: Make) -> None:
    """Ten times larger latents have a log-density that is lower by log 10 a value."""
    z = gaussian()
    small, large = fitted(make(steps=20), z), fitted(make(steps=20), 10 * z)
    with torch.no_grad():
        difference = small.distribution().log_prob(z) - large.distribution().log_prob(10 * z)
    torch.testing.assert_close(
        difference, torch.full_like(difference, 2 * math.log(10)), atol=1e-2, rtol=0
    )


@pytest.mark.parametrize("make", [maf, nsf, two_stage])
def test_samples_have_the_moments(make: Make) -> None:
    z = draw(fitted(make(), gaussian()), 5000)
    torch.testing.assert_close(z.mean(0), MEAN, atol=0.3, rtol=0)
    expected = COVARIANCE[0, 1] / COVARIANCE.diagonal().prod().sqrt()
    assert float(torch.corrcoef(z.T)[0, 1]) == pytest.approx(float(expected), abs=0.12)
    torch.testing.assert_close(z.std(0), COVARIANCE.diagonal().sqrt(), atol=0, rtol=0.15)


def test_two_modes_keep_their_weights() -> None:
    torch.manual_seed(0)
    left = torch.rand(5000) < 0.7
    z = torch.where(left, -3.0, 4.0)[:, None] + 0.3 * torch.randn(5000, 2)
    found = draw(fitted(nsf(), z), 5000)[:, 0]
    assert float((found < 0.5).float().mean()) == pytest.approx(0.7, abs=0.06)


def test_the_second_vae_learns_its_variance() -> None:
    """Latents on a line, with a little noise around it: γ is the deviation that is left.

    So samples lie around the line as the latents do, where z₁ - z₂ has the deviation √2 · 0.05.
    """
    torch.manual_seed(0)
    along = torch.randn(5000, 1)
    sampler = two_stage()
    sampler = fitted(sampler, torch.cat([along, along], 1) + 0.05 * torch.randn(5000, 2))
    assert isinstance(sampler, TwoStageSampler)
    assert float(sampler.log_gamma.exp()) == pytest.approx(0.05, rel=0.15)
    z = draw(sampler, 5000)
    assert float((z[:, 0] - z[:, 1]).std()) == pytest.approx(0.05 * math.sqrt(2), rel=0.15)
    assert float(z.std(0).mean()) == pytest.approx(1, abs=0.1)


class TestHypersphere:
    def test_norms_and_directions(self) -> None:
        """Of 50 values: log-radii with their mean and deviation, directions without a mean."""
        torch.manual_seed(0)
        latents = 3 + 2 * torch.randn(4000, 50)
        sampler = fitted(hypersphere((50,)), latents)
        z = draw(sampler, 4000)
        for x in (latents, z):
            radius = ((x - sampler.mean) / sampler.std).norm(dim=1).log()
            assert float(radius.mean()) == pytest.approx(0.5 * math.log(50), abs=0.02)
            assert float(radius.std()) == pytest.approx(0.1, abs=0.02)
        torch.testing.assert_close(z.mean(0), latents.mean(0), atol=0.15, rtol=0)
        torch.testing.assert_close(z.std(0), latents.std(0), atol=0, rtol=0.1)

    def test_latents_on_a_sphere_are_uniform_there(self) -> None:
        torch.manual_seed(0)
        latents = torch.nn.functional.normalize(torch.randn(500, 3) + 1, dim=1)
        sampler = fitted(hypersphere((3,)), latents)
        prior = sampler.distribution()
        z = draw(sampler, 4000)
        torch.testing.assert_close(z.norm(dim=1), torch.ones(4000))
        torch.testing.assert_close(z.mean(0), torch.zeros(3), atol=0.05, rtol=0)
        assert float(prior.log_prob(z[0])) == pytest.approx(-math.log(4 * math.pi))
        projected = prior.project(5 * z[:2])  # type: ignore[attr-defined]
        torch.testing.assert_close(projected, z[:2])


@ALL
def test_a_grid_of_latents_is_flattened(make: Make) -> None:
    sampler = make((2, 3, 2)) if make is hypersphere else make((2, 3, 2), steps=3)
    z = draw(fitted(sampler, torch.randn(50, 2, 3, 2)), 4)
    assert z.shape == (4, 2, 3, 2)
    if sampler.has_density:
        assert sampler.distribution().log_prob(z).shape == (4,)


@ALL
def test_a_fitted_state_loads(make: Make) -> None:
    options = {} if make is hypersphere else {"steps": 3}
    sampler, fresh = make(**options), make(**options)
    before = {name: value.shape for name, value in sampler.state_dict().items()}
    assert not sampler.is_fitted
    fitted(sampler, gaussian())
    assert {name: value.shape for name, value in sampler.state_dict().items()} == before
    fresh.load_state_dict(sampler.state_dict())
    assert fresh.is_fitted
    assert draw(fresh.eval(), 3).equal(draw(sampler, 3))
    assert not any(p.requires_grad for p in sampler.parameters())


@ALL
def test_temperature_zero_has_no_spread(make: Make) -> None:
    options = {} if make is hypersphere else {"steps": 3}
    prior = fitted(make(**options), gaussian()).distribution()
    cold = prior.with_temperature(0.0).sample(torch.Size((3,)))  # type: ignore[attr-defined]
    torch.testing.assert_close(cold, cold[:1].expand(3, -1))
