"""Losses and metrics that look into posteriors, with those of the bottlenecks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.distributions import Distribution, Independent

import vaezoo
from vaezoo import BaseVAE, Batch, StepContext
from vaezoo.errors import OptionError
from vaezoo.evaluation.latents import latent_kls, prior_quantiles
from vaezoo.models.distributions import kl_divergence, mode
from vaezoo_export.export import EncoderGraph
from vaezoo_objectives.aggregate import gather_posteriors, pairwise_log_prob
from vaezoo_objectives.dip_vae import mean_covariance

NAMES = ("full_gaussian", "laplace", "student_t", "planar_flow", "radial_flow")
SEPARATE = ("laplace", "student_t")
"""Those with independent latents."""

every_bottleneck = pytest.mark.parametrize("name", NAMES)


def small(name: str, loss: str | None = None, grid: bool = False, **options: Any) -> BaseVAE:
    """vanilla on 8×8 images with this bottleneck: a vector of 3, or 3 channels on a 2×2 grid."""
    torch.manual_seed(0)
    network = {"network": "conv", "hidden": (8, 8)} if grid else {"network": "mlp", "hidden": (8,)}
    given = {"latent_dim": 3, "latent_grid": grid, **network, **options}
    return vaezoo.create_model("vanilla", (1, 8, 8), bottleneck=name, loss=loss, **given)


def made(name: str, grid: tuple[int, ...] = ()) -> Any:
    part: Any = small(name, grid=bool(grid)).bottleneck
    return part.double()


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


def test_the_quantiles_of_a_laplace_prior_are_exact() -> None:
    found = prior_quantiles(small("laplace"), torch.tensor([0.05, 0.5, 0.9]))
    expected = torch.tensor([0.1, 1.0, 0.2]).log() * torch.tensor([1.0, 0.0, -1.0]) / 2**0.5
    assert torch.allclose(found, expected[:, None].expand(3, 3), atol=1e-6)


def test_the_quantiles_of_students_t_are_those_of_draws() -> None:
    stats = pytest.importorskip("scipy.stats")
    found = prior_quantiles(small("student_t"), torch.tensor([0.25, 0.75]))
    expected = stats.t.ppf(0.75, 5) * (3 / 5) ** 0.5
    signs = torch.tensor([[-1.0], [1.0]])
    assert torch.allclose(found, float(expected) * signs.expand(2, 3), atol=0.06)


def test_the_rate_of_each_latent_is_known_where_they_are_independent() -> None:
    for name, known in (("laplace", True), ("student_t", False), ("full_gaussian", False)):
        q, prior = posterior(name), made(name).prior()
        each = latent_kls(q, prior)
        assert (each is not None) == known
        if each is not None:
            assert torch.allclose(each.sum(1), kl_divergence(q, prior, q.mean))


LOSSES = ("elbo", "beta_tc", "dip_vae", "info_vae", "wae_mmd", "capacity", "iwae", "miwae")


@pytest.mark.parametrize("grid", [False, True])
@pytest.mark.parametrize("loss", [*LOSSES, "factor_vae", "aae"])
@every_bottleneck
def test_a_loss_works_or_refuses_in_a_line(name: str, loss: str, grid: bool) -> None:
    model = small(name, loss, grid)
    x = torch.rand(6, 1, 8, 8)
    assert model.loss is not None
    independent = name in SEPARATE
    closed = independent or name == "full_gaussian"
    refused = not {"beta_tc": independent, "dip_vae": closed}.get(loss, True)
    for phase in model.loss.phases(model):
        context = StepContext(torch.tensor(0), 10, 100)
        if refused:
            with pytest.raises(OptionError, match="another --loss") as caught:
                phase.loss_fn(model, Batch(x), context)
            assert "\n" not in str(caught.value)
            continue
        output = phase.loss_fn(model, Batch(x), context)
        assert output.loss.isfinite()
        output.loss.backward(inputs=list(phase.parameters))
        for parameter in phase.parameters:
            assert parameter.grad is None or parameter.grad.isfinite().all()


@pytest.mark.parametrize("model", ["vamp_prior", "vae_gan"])
@every_bottleneck
def test_what_needs_a_diagonal_gaussian_says_so(name: str, model: str) -> None:
    with pytest.raises(OptionError, match="gaussian") as caught:
        vaezoo.create_model(model, (1, 16, 16), bottleneck=name, latent_dim=3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("gradient", ["standard", "doubly_reparameterized"])
@every_bottleneck
def test_the_importance_weighted_bound_of_one_sample_is_the_elbo(name: str, gradient: str) -> None:
    """The doubly reparameterized gradient needs the density at a value that is not the sample."""
    model = small(name, "iwae", samples=1, gradient=gradient).double()
    x = torch.rand(6, 1, 8, 8).double()
    torch.manual_seed(1)
    posterior, z, prior, likelihood = model(x)
    elbo = likelihood.log_prob(x) + prior.log_prob(z) - posterior.log_prob(z)
    torch.manual_seed(1)
    assert model.loss is not None
    output = model.loss(model, Batch(x), StepContext(torch.tensor(0), 10, 100))
    assert torch.allclose(output.terms["bound"], elbo)
    output.loss.backward()


@pytest.mark.parametrize("grid", [False, True])
@every_bottleneck
def test_an_encoder_can_be_exported(name: str, grid: bool) -> None:
    """The program gives the mode of the posterior, also for another batch size."""
    model = small(name, grid=grid).eval()
    graph = EncoderGraph(model)
    batch = torch.export.Dim("batch", min=1, max=64)
    x = torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        program = torch.export.export(graph, (x,), dynamic_shapes=({0: batch},))
        found = program.module()(x[:3])[0]
    assert torch.allclose(found, mode(model.encode(x[:3])), atol=1e-6)


@pytest.mark.parametrize("name", ["full_gaussian", "planar_flow"])
def test_a_bad_pair_is_refused_in_a_line(name: str) -> None:
    with pytest.raises(OptionError, match="latent_grid needs a network with a grid"):
        small(name, latent_grid=True)
