"""The mixture's density by matrix products: it is torch's, it is normalised, it samples itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily

from vaezoo.models.distributions import diagonal_normal
from vaezoo_latents.mixture import GaussianMixture


def components(count: int, n: int, sharp: float = 0.0) -> tuple[Tensor, Tensor]:
    """Means and scales [count, n], float64; log-variances around -2 * sharp."""
    generator = torch.Generator().manual_seed(count + n)
    loc = 2 * torch.randn(count, n, generator=generator, dtype=torch.float64)
    spread = torch.randn(count, n, generator=generator, dtype=torch.float64)
    return loc, torch.exp(0.5 * spread - sharp)


def reference(loc: Tensor, scale: Tensor) -> MixtureSameFamily:
    weights = Categorical(torch.ones(len(loc), dtype=loc.dtype))
    return MixtureSameFamily(weights, diagonal_normal(loc, scale))


@pytest.mark.parametrize(("count", "n"), [(1, 1), (1, 3), (5, 1), (500, 40)])
def test_density_is_that_of_torch(count: int, n: int) -> None:
    loc, scale = components(count, n)
    z = 2 * torch.randn(3, 8, n, dtype=torch.float64)
    found = GaussianMixture(loc, scale).log_prob(z)
    assert found.shape == (3, 8)
    assert torch.allclose(found, reference(loc, scale).log_prob(z), rtol=0, atol=1e-9)


@pytest.mark.parametrize("sharp", [0.0, 3.0, 10.0])
def test_single_precision_keeps_its_nats(sharp: float) -> None:
    """At log-variance -20 the products that cancel are near 1e11: in float32 they keep nothing."""
    loc, scale = (values.float() for values in components(500, 40, sharp))
    z = loc[:100] + scale[:100] * torch.randn(100, 40, generator=torch.manual_seed(0))
    found = GaussianMixture(loc, scale).log_prob(z)
    exact = reference(loc.double(), scale.double()).log_prob(z.double())
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), exact, rtol=1e-6, atol=2e-4)


def test_gradients_are_those_of_torch() -> None:
    inputs = [*components(6, 3), torch.randn(4, 3, dtype=torch.float64)]
    ours, theirs = ([value.clone().requires_grad_() for value in inputs] for _ in range(2))
    GaussianMixture(*ours[:2]).log_prob(ours[2]).sum().backward()
    reference(*theirs[:2]).log_prob(theirs[2]).sum().backward()
    for mine, their in zip(ours, theirs, strict=True):
        assert mine.grad is not None
        assert torch.allclose(mine.grad, their.grad, rtol=0, atol=1e-9)


def test_density_integrates_to_one() -> None:
    """On a grid over the plane: no constant, sign or parenthesis is out of place."""
    loc, scale = components(4, 2)
    axis = torch.linspace(-25, 25, 1001, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    mass = GaussianMixture(loc, scale).log_prob(grid).exp().sum() * (axis[1] - axis[0]) ** 2
    assert mass.item() == pytest.approx(1, abs=1e-6)


def test_samples_have_its_moments() -> None:
    loc, scale = components(3, 2)
    mixture = GaussianMixture(loc, scale)
    torch.manual_seed(0)
    z = mixture.sample((40_000,))
    assert torch.allclose(z.mean(0), loc.mean(0), rtol=0, atol=0.08)
    second = (loc.square() + scale.square()).mean(0)
    assert torch.allclose(z.square().mean(0), second, rtol=0.03)
    assert torch.allclose(mixture.mean, loc.mean(0))


def test_temperature_narrows_each_component_around_its_own_mean() -> None:
    mixture = GaussianMixture(torch.tensor([[-10.0], [10.0]]), torch.ones(2, 1))
    torch.manual_seed(0)
    z = mixture.with_temperature(0.1).sample((2_000,))
    assert ((z.abs() - 10).abs() < 0.6).all()
    assert (z.abs() - 10).std().item() == pytest.approx(0.1, rel=0.1)
    assert mixture.with_temperature(0.0).sample((50,)).unique().tolist() == [-10.0, 10.0]
