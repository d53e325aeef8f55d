"""Full Gaussian, Laplace and Student's t latents, against torch, scipy and quadrature."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal

from vaezoo import GaussianOptions
from vaezoo.errors import OptionError
from vaezoo.models.distributions import diagonal_normal, independent, kl_divergence, mode
from vaezoo_bottlenecks.full_gaussian import FullGaussian, FullGaussianBottleneck
from vaezoo_bottlenecks.laplace import LaplaceBottleneck
from vaezoo_bottlenecks.latent import LatentBottleneck
from vaezoo_bottlenecks.options import FlowOptions, FullGaussianOptions, StudentTOptions
from vaezoo_bottlenecks.planar_flow import PlanarFlowBottleneck
from vaezoo_bottlenecks.radial_flow import RadialFlowBottleneck
from vaezoo_bottlenecks.student_t import StudentT, StudentTBottleneck

FAMILIES: dict[str, type[LatentBottleneck]] = {
    "full_gaussian": FullGaussianBottleneck,
    "laplace": LaplaceBottleneck,
    "student_t": StudentTBottleneck,
    "planar_flow": PlanarFlowBottleneck,
    "radial_flow": RadialFlowBottleneck,
}
OPTIONS = {
    "full_gaussian": FullGaussianOptions,
    "laplace": GaussianOptions,
    "student_t": StudentTOptions,
}
SEPARATE = ("laplace", "student_t")
"""Those with independent latents."""

every_family = pytest.mark.parametrize("name", list(FAMILIES))


def numbers(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape) + seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def make(name: str, n: int, grid: tuple[int, ...] = (), **options: Any) -> LatentBottleneck:
    given = {"latent_dim": n, "latent_grid": bool(grid), **options}
    return FAMILIES[name](OPTIONS.get(name, FlowOptions)(**given), grid).double()


@every_family
class TestInterface:
    @pytest.mark.parametrize("grid", [(), (5,), (3, 2), (2, 2, 2)])
    def test_shapes(self, name: str, grid: tuple[int, ...]) -> None:
        made = make(name, 4, grid)
        assert made.latent_shape == (4, *grid)
        assert made.grid == grid
        assert made.out_features == 4
        posterior, prior = made(numbers(3, made.num_params, *grid)), made.prior()
        assert (posterior.batch_shape, posterior.event_shape) == ((3,), (4, *grid))
        assert (prior.batch_shape, prior.event_shape) == ((), (4, *grid))
        z = posterior.rsample((2,))
        assert z.shape == (2, 3, 4, *grid)
        assert made.decoder_input(z[0]).shape == (3, 4, *grid)
        assert posterior.log_prob(z).shape == prior.log_prob(z).shape == (2, 3)
        assert kl_divergence(posterior, prior, z[0]).shape == (3,)
        assert mode(posterior).shape == (3, 4, *grid)

    def test_without_the_option_it_is_a_vector_on_any_network(self, name: str) -> None:
        options = make(name, 4).options
        assert FAMILIES[name](options, (3, 2)).grid == ()

    def test_a_grid_needs_a_network_that_has_one(self, name: str) -> None:
        options = type(make(name, 4).options)(latent_dim=4, latent_grid=True)
        with pytest.raises(OptionError, match="--latent-grid needs a network with a grid"):
            FAMILIES[name](options, ())

    def test_a_position_of_a_grid_is_as_a_vector_alone(self, name: str) -> None:
        on_grid, alone = make(name, 3, (2, 2)), make(name, 3)
        params, z = numbers(4, on_grid.num_params, 2, 2), numbers(4, 3, 2, 2)
        each = [alone(params[..., i, j]).log_prob(z[..., i, j]) for i in (0, 1) for j in (0, 1)]
        assert torch.allclose(on_grid(params).log_prob(z), torch.stack(each).sum(0))

    def test_the_prior_has_mean_0_and_variance_1(self, name: str) -> None:
        prior = make(name, 3).prior()
        assert prior.mean.equal(torch.zeros(3).double())
        assert torch.allclose(prior.variance, torch.ones(3).double())

    def test_zeros_from_the_encoder_are_the_prior(self, name: str) -> None:
        made = make(name, 3)
        posterior, z = made(torch.zeros(2, made.num_params).double()), numbers(2, 3)
        assert torch.allclose(posterior.log_prob(z), made.prior().log_prob(z))
        rate = kl_divergence(posterior, made.prior(), z)
        assert torch.allclose(rate, torch.zeros(2).double(), atol=1e-12)

    @pytest.mark.parametrize("size", [1e2, 1e4])
    @pytest.mark.parametrize("grid", [(), (2,)])
    def test_extreme_parameters_give_finite_values_and_gradients(
        self, name: str, size: float, grid: tuple[int, ...]
    ) -> None:
        torch.manual_seed(0)
        made = make(name, 6, grid).float()
        params = (size * torch.randn(8, made.num_params, *grid)).requires_grad_()
        posterior, prior = made(params), made.prior()
        z = posterior.rsample()
        rate = kl_divergence(posterior, prior, z)
        for value in (z, rate, posterior.log_prob(z), mode(posterior)):
            assert value.isfinite().all()
            (gradient,) = torch.autograd.grad(value.sum(), params, retain_graph=True)
            assert gradient.isfinite().all()

    def test_half_precision_features_give_single_precision(self, name: str) -> None:
        torch.manual_seed(0)
        made = make(name, 5).float()
        params = numbers(3, made.num_params).bfloat16()
        with torch.autocast("cpu", torch.bfloat16):
            posterior = made(params)
            z = posterior.rsample()
            known, again = posterior.log_prob(z), posterior.log_prob(z.clone())
            rate = kl_divergence(posterior, made.prior(), z)
        for value in (z, known, again, rate, mode(posterior)):
            assert value.dtype == torch.float32
        assert torch.allclose(known, again, atol=1e-3)

    def test_logvar_range_limits_the_variance(self, name: str) -> None:
        made = make(name, 3, logvar_range=(-2.0, 1.0))
        posterior = made(100 * numbers(50, made.num_params))
        base = getattr(posterior, "base", None)  # of a flow: the Gaussian that it starts from
        variance = posterior.variance if base is None else base.variance
        assert variance.min().item() == pytest.approx(math.exp(-2))
        assert variance.max().item() == pytest.approx(math.e)

    def test_the_state_has_no_entry_of_its_own(self, name: str) -> None:
        assert not make(name, 3).state_dict()


class TestFullGaussian:
    def posterior(self, n: int = 4, batch: int = 3, size: float = 1.0) -> FullGaussian:
        made = make("full_gaussian", n)
        found = made(size * numbers(batch, made.num_params))
        assert isinstance(found, FullGaussian)
        return found

    def test_is_torchs_multivariate_normal(self) -> None:
        q, z = self.posterior(), numbers(5, 3, 4)
        theirs = MultivariateNormal(q.loc, scale_tril=q.scale_tril)
        assert torch.allclose(q.log_prob(z), theirs.log_prob(z))
        assert torch.allclose(q.variance, theirs.variance)
        assert torch.allclose(q.covariance_matrix, theirs.covariance_matrix)
        assert q.mean.equal(theirs.mean)
        own = q.rsample((5,))
        assert torch.allclose(q.log_prob(own), theirs.log_prob(own))

    def test_samples_have_this_covariance(self) -> None:
        torch.manual_seed(0)
        q, count = self.posterior(batch=1), 100_000
        z = q.rsample((count,))[:, 0]
        expected = q.covariance_matrix[0]
        scale = q.variance[0].outer(q.variance[0]).sqrt()
        assert ((torch.cov(z.T) - expected).abs() < 5 * 1.5 * scale / math.sqrt(count)).all()
        assert ((z.mean(0) - q.mean[0]).abs() < 5 * q.stddev[0] / math.sqrt(count)).all()

    def test_rate_is_torchs_for_a_full_and_for_a_diagonal_prior(self) -> None:
        q = self.posterior()
        full = MultivariateNormal(q.loc, scale_tril=q.scale_tril)
        loc, scale = numbers(4), numbers(4, seed=3).exp()
        for m, s in ((torch.zeros(4).double(), torch.ones(4).double()), (loc, scale)):
            expected = kl_divergence(full, MultivariateNormal(m, scale_tril=s.diag()), q.loc)
            found = kl_divergence(q, diagonal_normal(m, s), q.mean)
            assert torch.allclose(found, expected)

    def test_to_another_prior_the_rate_is_an_estimate(self) -> None:
        q, prior = self.posterior(), make("laplace", 4).prior()
        z = q.rsample()
        assert torch.allclose(kl_divergence(q, prior, z), q.log_prob(z) - prior.log_prob(z))

    def test_the_encoder_gives_variances_and_any_correlation(self) -> None:
        """The variances are those of the diagonal Gaussian; a correlation goes up to ±1."""
        made = make("full_gaussian", 2)
        params = torch.tensor([[0.0, 0.0, 1.0, -1.0, v] for v in (-1e9, -1.0, 0.0, 3.0)]).double()
        q = made(params)
        assert isinstance(q, FullGaussian)
        assert torch.allclose(q.variance, torch.tensor([1.0, -1.0]).double().exp().expand(4, 2))
        cross = q.covariance_matrix[:, 0, 1] / q.variance.prod(1).sqrt()
        expected = params[:, 4] / (1 + params[:, 4].square()).sqrt()
        assert torch.allclose(cross, expected, atol=1e-7)

    def test_covariance_of_a_grid_is_in_the_order_of_a_flattened_latent(self) -> None:
        made = make("full_gaussian", 3, (2, 2))
        q = made(numbers(2, made.num_params, 2, 2))
        assert isinstance(q, FullGaussian)
        full = q.covariance_matrix
        assert full.shape == (2, 12, 12)
        assert torch.allclose(full.diagonal(dim1=1, dim2=2), q.variance.flatten(1))
        z = numbers(2, 3, 2, 2)
        flat = MultivariateNormal(q.mean.flatten(1), full)
        assert torch.allclose(flat.log_prob(z.flatten(1)), q.log_prob(z))

    def test_gradients_of_samples_and_densities(self) -> None:
        made = make("full_gaussian", 3)

        def draw(params: Tensor) -> tuple[Tensor, Tensor]:
            torch.manual_seed(1)
            q = made(params)
            z = q.rsample()
            return z, q.log_prob(z)

        params, z = numbers(2, made.num_params).requires_grad_(), numbers(2, 3)
        assert torch.autograd.gradcheck(draw, params)
        assert torch.autograd.gradcheck(lambda p: made(p).log_prob(z), params)

    def test_one_value_is_a_gaussian(self) -> None:
        made = make("full_gaussian", 1)
        params, z = numbers(4, 2), numbers(4, 1)
        assert made.num_params == 2
        expected = diagonal_normal(params[:, :1], (0.5 * params[:, 1:]).exp())
        assert torch.allclose(made(params).log_prob(z), expected.log_prob(z))


def nodes(scale: float = 60.0, count: int = 400_001) -> Tensor:
    return torch.linspace(-scale, scale, count, dtype=torch.float64)


@pytest.mark.parametrize("name", SEPARATE)
class TestSeparate:
    def one(self, name: str, loc: float = 0.7, logvar: float = -1.2) -> Any:
        made = make(name, 1)
        return made(torch.tensor([[loc, logvar]]).double()), made.prior()

    def test_mean_variance_and_total_are_those_of_the_density(self, name: str) -> None:
        """By quadrature; the tail of Student's t beyond the nodes has 1e-6 of the variance."""
        q, _ = self.one(name)
        x = nodes(300.0, 600_001)
        density = q.log_prob(x[:, None]).exp()
        assert torch.trapezoid(density, x).item() == pytest.approx(1, abs=1e-6)
        mean = torch.trapezoid(x * density, x).item()
        assert mean == pytest.approx(q.mean.item(), abs=1e-5) == 0.7
        variance = torch.trapezoid((x - mean).square() * density, x).item()
        assert variance == pytest.approx(q.variance.item(), rel=1e-4)
        assert q.variance.item() == pytest.approx(math.exp(-1.2))

    def test_rate_is_the_integral(self, name: str) -> None:
        """In closed form (Laplace), or as the mean of estimates within 5 standard errors."""
        torch.manual_seed(0)
        q, prior = self.one(name)
        x = nodes()[:, None]
        log_ratio = q.log_prob(x) - prior.log_prob(x)
        expected = torch.trapezoid(q.log_prob(x).exp() * log_ratio, x[:, 0]).item()
        found = kl_divergence(q, prior, q.rsample((100_000,)))
        error = 1e-6 if found.dim() == 1 else 5 * found.std().item() / math.sqrt(100_000)
        assert found.mean().item() == pytest.approx(expected, abs=error)

    def test_samples_have_that_density(self, name: str) -> None:
        """The largest distance of the distribution functions: Kolmogorov's 1e-6 quantile."""
        torch.manual_seed(0)
        q, _ = self.one(name)
        count = 200_000
        z = q.rsample((count,)).flatten().sort().values
        x = nodes(300.0, 600_001)
        cdf = torch.cumulative_trapezoid(q.log_prob(x[:, None]).exp(), x)
        expected = cdf[torch.searchsorted(x[1:], z).clamp(max=len(cdf) - 1)]
        steps = torch.arange(1, count + 1).double() / count
        assert (steps - expected).abs().max().item() < 2.7 / math.sqrt(count)

    def test_gradients_of_samples_are_implicit_ones(self, name: str) -> None:
        """dz/dθ = −(∂F/∂θ) / density (Figurnov et al. 2018), F by quadrature and differences."""
        torch.manual_seed(0)
        made, x = make(name, 1), nodes(300.0, 600_001)
        params = torch.tensor([[0.3, -0.5]]).double().requires_grad_()
        z = made(params).rsample()
        (found,) = torch.autograd.grad(z.sum(), params)

        def cdf(at: Tensor) -> float:
            density = made(at).log_prob(x[:, None]).exp()
            total = torch.cumulative_trapezoid(density, x)
            i = int(torch.searchsorted(x, z.detach().flatten())[0]) - 1
            rest = float(z.detach() - x[i])
            return float(total[i - 1] + rest * 0.5 * (density[i] + density[i + 1]))

        for k in (0, 1):
            step = torch.zeros(1, 2).double()
            step[0, k] = 1e-3
            slope = (cdf(params.detach() + step) - cdf(params.detach() - step)) / 2e-3
            implicit = -slope / made(params).log_prob(z).exp().item()
            assert found[0, k].item() == pytest.approx(implicit, rel=1e-3, abs=1e-3)

    def test_each_latent_is_independent(self, name: str) -> None:
        made = make(name, 3)
        q = made(numbers(2, 6))
        assert isinstance(q, Independent)
        assert q.base_dist.batch_shape == (2, 3)


class TestStudentT:
    @pytest.mark.parametrize("df", [2.5, 5.0, 300.0])
    def test_is_scipys_and_torchs(self, df: float) -> None:
        loc, scale, x = numbers(9), numbers(9, seed=1).exp(), 4 * numbers(9, seed=2)
        ours = StudentT(torch.tensor(df).double(), loc, scale)
        theirs = torch.distributions.StudentT(torch.tensor(df).double(), loc, scale)
        assert torch.allclose(ours.log_prob(x), theirs.log_prob(x))
        assert torch.allclose(ours.variance, theirs.variance)
        stats = pytest.importorskip("scipy.stats")
        expected = stats.t.logpdf(x.numpy(), df, loc.numpy(), scale.numpy())
        assert torch.allclose(ours.log_prob(x), torch.from_numpy(expected))

    @pytest.mark.parametrize("df", [2.1, 5.0, 1e6])
    def test_tails_of_samples(self, df: float) -> None:
        """How many lie beyond 3, 10 and 30 scales: scipy's, within 5 standard errors."""
        stats = pytest.importorskip("scipy.stats")
        torch.manual_seed(0)
        q, count = StudentT(*(torch.tensor(v) for v in (df, 0.0, 1.0))), 400_000
        z = q.rsample((count,))
        assert z.isfinite().all()
        for far in (0.1, 1.0, 3.0, 10.0, 30.0):
            expected = stats.t.sf(far, df)
            error = 5 * math.sqrt(max(expected, 1e-9) / count) + 1e-9
            assert (z > far).double().mean().item() == pytest.approx(expected, abs=error)
            assert (z < -far).double().mean().item() == pytest.approx(expected, abs=error)

    def test_with_many_degrees_of_freedom_it_is_the_gaussian(self) -> None:
        q, x = make("student_t", 2, df=1e6)(numbers(3, 4)), numbers(3, 2)
        params = numbers(3, 4)
        gaussian = independent(Normal(params[:, :2], (0.5 * params[:, 2:]).exp()))
        assert torch.allclose(q.log_prob(x), gaussian.log_prob(x), atol=1e-4)

    def test_the_ratio_to_the_prior_is_bounded(self) -> None:
        """As the tails are alike: far away it is that of the scales to the power df."""
        made = make("student_t", 1)
        q, prior = made(torch.tensor([[0.5, -2.0]]).double()), made.prior()
        far = torch.tensor([[[1e5]], [[-1e7]]]).double()
        ratio = q.log_prob(far) - prior.log_prob(far)
        assert torch.allclose(ratio, torch.full((2, 1), -5.0).double(), atol=1e-3)

    def test_has_gradients_by_the_degrees_of_freedom(self) -> None:
        df = torch.tensor([3.0, 8.0]).double().requires_grad_()

        def draw(df: Tensor) -> tuple[Tensor, Tensor]:
            torch.manual_seed(1)
            q = StudentT(df, numbers(2), numbers(2).exp())
            return q.rsample((4,)), q.log_prob(numbers(4, 2))

        assert torch.autograd.gradcheck(draw, df)
