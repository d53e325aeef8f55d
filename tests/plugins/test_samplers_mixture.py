"""Tests of the mixture sampler: EM never falls, finds clusters, and is saved."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from vaezoo import LatentSpec
from vaezoo_samplers.mixture import GaussianMixtureSampler
from vaezoo_samplers.options import MixtureOptions


def skewed(n: int = 400, dim: int = 3) -> Tensor:
    """Points of two overlapping Gaussians, which one component does not fit."""
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    turn = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    return torch.where((torch.arange(n) % 3 == 0)[:, None], z @ turn, z + 1.0)


def make(components: int, dim: int) -> GaussianMixtureSampler:
    return GaussianMixtureSampler(MixtureOptions(components=components), LatentSpec((dim,)))


def fitted(z: Tensor, components: int, seed: int = 0, **how: float) -> GaussianMixtureSampler:
    torch.manual_seed(seed)
    mixture = make(components, z.shape[1]).double()
    mixture.fit_em(z, **how)
    return mixture


class TestFit:
    @pytest.mark.parametrize("ridge", [0.0, 1e-6, 0.1])
    @pytest.mark.parametrize("components", [1, 2, 7])
    def test_never_falls(self, components: int, ridge: float) -> None:
        torch.manual_seed(0)
        mixture = make(components, 3)
        history = mixture.fit_em(skewed(), ridge=ridge, tolerance=-math.inf, iterations=60)
        assert len(history) == 60
        assert all(after >= before - 1e-12 for before, after in itertools.pairwise(history))
        assert components == 1 or history[-1] > history[0] + 0.01

    @pytest.mark.parametrize("tolerance", [1e-2, 1e-4])
    def test_it_goes_on_as_long_as_an_iteration_gains_the_tolerance(self, tolerance: float) -> None:
        torch.manual_seed(0)
        history = make(4, 3).fit_em(skewed(), tolerance=tolerance)
        gains = [after - before for before, after in itertools.pairwise(history)]
        assert 3 < len(history) < 200
        assert min(gains[:-1]) >= tolerance > gains[-1]

    def test_it_returns_the_log_likelihood(self) -> None:
        """Equal to torch's mixture, from covariances instead of their factors."""
        torch.manual_seed(0)
        z, mixture = skewed(), make(4, 3).double()
        history = mixture.fit_em(z, ridge=0.0)
        covariances = mixture.factors @ mixture.factors.mT
        reference = MixtureSameFamily(
            Categorical(mixture.weights), MultivariateNormal(mixture.means, covariances)
        )
        log_p = reference.log_prob(z)
        assert history[-1] == pytest.approx(float(log_p.mean()), rel=0, abs=1e-10)
        assert torch.allclose(mixture.distribution().log_prob(z), log_p, rtol=0, atol=1e-10)

    def test_one_component_is_the_sample_mean_and_covariance(self) -> None:
        z = skewed()
        mixture = fitted(z, 1, ridge=0.0)
        covariance = torch.cov(z.T, correction=0)
        assert torch.allclose(mixture.means[0], z.mean(0), rtol=0, atol=1e-12)
        assert torch.allclose(mixture.factors[0] @ mixture.factors[0].T, covariance, atol=1e-12)

    @pytest.mark.parametrize("seed", range(5))
    def test_finds_two_far_clusters(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(4000, 2, generator=generator, dtype=torch.float64)
        turn = torch.tensor([[1.0, 0.9], [0.0, 0.5]]).double()
        z = torch.cat([noise[:1000] + 30.0, noise[1000:] @ turn - 30.0])
        mixture = fitted(z, 2, seed)
        first = int(mixture.weights.argmin())
        assert mixture.weights[first].item() == pytest.approx(0.25, abs=1e-6)
        assert torch.allclose(mixture.means[first], torch.full((2,), 30.0).double(), atol=0.2)
        assert torch.allclose(mixture.means[1 - first], torch.full((2,), -30.0).double(), atol=0.2)
        covariances = mixture.factors @ mixture.factors.mT
        assert torch.allclose(covariances[first], torch.eye(2).double(), atol=0.15)
        assert torch.allclose(covariances[1 - first], turn.T @ turn, atol=0.15)
        samples = mixture.distribution().sample(torch.Size((1000,)))
        assert (samples[:, 0] > 0).double().mean() == pytest.approx(0.25, abs=0.05)
        assert samples.abs().min() > 15

    def test_follows_the_generator(self) -> None:
        z = skewed()
        a, b, c = (fitted(z, 5, seed, iterations=3) for seed in (0, 0, 1))
        assert a.means.equal(b.means)
        assert not a.means.equal(c.means)

    @pytest.mark.parametrize(
        "z",
        [
            torch.zeros(20, 3),
            torch.ones(20, 1) * torch.tensor([1.0, -2.0, 3.0]),
            torch.eye(3),
            torch.randn(50, 1, generator=torch.Generator().manual_seed(0)).expand(50, 3),
            1e6 + torch.randn(50, 3, generator=torch.Generator().manual_seed(0)),
        ],
        ids=["zero", "constant", "fewer points than components", "on a line", "far away"],
    )
    def test_stays_finite(self, z: Tensor) -> None:
        mixture = fitted(z, 8)
        assert all(buffer.isfinite().all() for buffer in mixture.buffers())
        assert mixture.weights.sum().item() == pytest.approx(1.0)
        samples = mixture.distribution().sample(torch.Size((100,)))
        assert (samples - z.mean(0)).abs().max() < 10 * (1 + z.std(0).max())


def test_before_fitting_it_is_a_standard_gaussian() -> None:
    z = torch.randn(5, 4)
    standard = -0.5 * z.square().sum(1) - 2 * math.log(2 * math.pi)
    for components in (1, 6):
        mixture = make(components, 4).distribution()
        assert (mixture.batch_shape, mixture.event_shape) == ((), (4,))
        assert torch.allclose(mixture.log_prob(z), standard, atol=1e-5)


def test_shapes_do_not_change() -> None:
    mixture = make(6, 3)
    before = {name: (t.shape, t.dtype) for name, t in mixture.state_dict().items()}
    mixture.fit(skewed().float())
    assert before == {name: (t.shape, t.dtype) for name, t in mixture.state_dict().items()}
