"""Losses and metrics that look into posteriors, with those of the bottlenecks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from vaezoo import BaseVAE
from vaezoo.errors import OptionError
from vaezoo.evaluation.latents import latent_kls, prior_quantiles
from vaezoo.models.distributions import diagonal_normal, kl_divergence
from vaezoo_bottlenecks.full_gaussian import FullGaussianBottleneck
from vaezoo_bottlenecks.laplace import LaplaceBottleneck
from vaezoo_bottlenecks.latent import LatentBottleneck
from vaezoo_bottlenecks.options import (
    FlowOptions,
    FullGaussianOptions,
    LaplaceOptions,
    StudentTOptions,
)
from vaezoo_bottlenecks.planar_flow import PlanarFlowBottleneck
from vaezoo_bottlenecks.student_t import StudentTBottleneck
from vaezoo_objectives.aggregate import gather_posteriors, pairwise_log_prob
from vaezoo_objectives.dip_vae import mean_covariance


def made(name: str, n: int = 3, grid: tuple[int, ...] = ()) -> LatentBottleneck:
    given: dict[str, Any] = {"latent_dim": n, "latent_grid": bool(grid)}
    found: LatentBottleneck = {
        "full_gaussian": lambda: FullGaussianBottleneck(FullGaussianOptions(**given), grid),
        "laplace": lambda: LaplaceBottleneck(LaplaceOptions(**given), grid),
        "student_t": lambda: StudentTBottleneck(StudentTOptions(**given), grid),
        "planar_flow": lambda: PlanarFlowBottleneck(FlowOptions(flow_steps=2, **given), grid),
    }[name]()
    return found.double()


def posterior(name: str, batch: int = 5, grid: tuple[int, ...] = ()) -> Distribution:
    part = made(name, grid=grid)
    generator = torch.Generator().manual_seed(0)
    params = torch.randn(batch, part.num_params, *grid, dtype=torch.float64, generator=generator)
    return part(params)


class TestTotalCorrelation:
    @pytest.mark.parametrize("grid", [(), (2, 2)])
    @pytest.mark.parametrize("name", ["laplace", "student_t"])
    def test_pairs_are_the_densities_of_each_latent(self, name: str, grid: tuple[int, ...]) -> None:
        q = posterior(name, grid=grid)
        z = q.rsample()
        gathered = gather_posteriors(q)
        pairs = pairwise_log_prob(gathered, z)
        assert pairs.shape == (5, 5, z[0].numel())
        assert torch.allclose(pairs.sum(2).diagonal(), q.log_prob(z))
        assert isinstance(q, Independent)
        assert torch.allclose(pairs[1, 3].view_as(z[1]), q.base_dist.log_prob(z[1])[3])
        assert torch.allclose(gathered.log_prob(z), q.log_prob(z))

    @pytest.mark.parametrize("name", ["full_gaussian", "planar_flow"])
    def test_dependent_latents_are_refused_in_a_line(self, name: str) -> None:
        with pytest.raises(OptionError, match="a posterior of independent latents") as caught:
            gather_posteriors(posterior(name))
        assert "\n" not in str(caught.value)


class TestCovariance:
    @pytest.mark.parametrize("grid", [(), (2, 2)])
    @pytest.mark.parametrize("name", ["laplace", "student_t", "full_gaussian"])
    def test_is_that_of_samples(self, name: str, grid: tuple[int, ...]) -> None:
        """Mean of the covariances, by 40,000 samples of each posterior: 5 % of the largest."""
        torch.manual_seed(0)
        q = posterior(name, grid=grid)
        z = q.rsample((40_000,)).flatten(2)
        expected = torch.stack([torch.cov(z[:, i].T) for i in range(5)]).mean(0)
        found = mean_covariance(q)
        assert (found - expected).abs().max() < 0.05 * expected.abs().max()
        off_diagonal = found - found.diagonal().diag()
        assert (off_diagonal.abs().max() > 0.1) == (name == "full_gaussian")

    def test_a_flow_has_none(self) -> None:
        with pytest.raises(NotImplementedError):
            mean_covariance(posterior("planar_flow"))


class OfBottleneck(BaseVAE):
    """What evaluation asks of a model for its latents."""

    def __init__(self, part: LatentBottleneck) -> None:
        torch.nn.Module.__init__(self)
        self.part, self.latent_shape = part, part.latent_shape
        self.register_buffer("_origin", torch.zeros(()), persistent=False)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return self.part(x)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return diagonal_normal(z, torch.ones_like(z))

    def prior(self, y: Tensor | None = None) -> Distribution:
        return self.part.prior()


def test_the_quantiles_of_a_laplace_prior_are_exact() -> None:
    model = OfBottleneck(made("laplace", 2).float())
    found = prior_quantiles(model, torch.tensor([0.05, 0.5, 0.9]))
    expected = torch.tensor([0.1, 1.0, 0.2]).log() * torch.tensor([1.0, 0.0, -1.0]) / 2**0.5
    assert torch.allclose(found, expected[:, None].expand(3, 2), atol=1e-6)


def test_the_quantiles_of_students_t_are_those_of_draws() -> None:
    stats = pytest.importorskip("scipy.stats")
    model = OfBottleneck(made("student_t", 2).float())
    found = prior_quantiles(model, torch.tensor([0.25, 0.75]))
    expected = stats.t.ppf(0.75, 5) * (3 / 5) ** 0.5
    assert torch.allclose(found[1], torch.full((2,), float(expected)), atol=0.06)
    assert torch.allclose(found[0], -torch.full((2,), float(expected)), atol=0.06)


def test_the_rate_of_each_latent_is_known_where_they_are_independent() -> None:
    for name, known in (("laplace", True), ("student_t", False), ("full_gaussian", False)):
        q, prior = posterior(name), made(name).prior()
        each = latent_kls(q, prior)
        assert (each is not None) == known
        if each is not None:
            assert torch.allclose(each.sum(1), kl_divergence(q, prior, q.mean))
