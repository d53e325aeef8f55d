"""Tests of distributions: KL divergences, log-mean-exp, Gaussians, point masses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import (
    Categorical,
    Distribution,
    ExpTransform,
    Independent,
    Laplace,
    MixtureSameFamily,
    Normal,
    TransformedDistribution,
)
from torch.distributions import kl as torch_kl

from vaezoo.errors import OptionError
from vaezoo.models.distributions import (
    Delta,
    IsotropicNormal,
    diagonal_normal,
    gaussian_from_params,
    kl_divergence,
    log_mean_exp,
    mode,
    sample_prior,
    to_float32,
)


def two_gaussians(*shape: int) -> tuple[Independent, Independent]:
    torch.manual_seed(0)
    q = diagonal_normal(torch.randn(shape).double(), torch.rand(shape).double() + 0.3)
    p = diagonal_normal(torch.randn(shape[1:]).double(), torch.rand(shape[1:]).double() + 0.5)
    return q, p


def mixture(dims: int) -> MixtureSameFamily:
    loc = torch.arange(4 * dims).double().reshape(4, dims).sin()
    return MixtureSameFamily(
        Categorical(torch.tensor([0.1, 0.2, 0.3, 0.4]).double()),
        diagonal_normal(loc, torch.full_like(loc, 0.7)),
    )


class TestIsotropicNormal:
    @pytest.mark.parametrize("event", [(4,), (3, 4, 2)])
    def test_is_the_diagonal_one_with_the_scale_everywhere(self, event: tuple[int, ...]) -> None:
        torch.manual_seed(0)
        loc = torch.randn(5, *event).double().requires_grad_()
        scale = torch.tensor(0.3).double().requires_grad_()
        x = torch.randn(7, 5, *event).double()
        one = IsotropicNormal(loc, scale, len(event))
        every = diagonal_normal(loc, scale.expand_as(loc), len(event))
        assert (one.batch_shape, one.event_shape) == (every.batch_shape, every.event_shape)
        torch.testing.assert_close(one.log_prob(x), every.log_prob(x))
        ours = torch.autograd.grad(one.log_prob(x).sin().sum(), (loc, scale))
        theirs = torch.autograd.grad(every.log_prob(x).sin().sum(), (loc, scale))
        torch.testing.assert_close(ours, theirs)

    def test_expands_like_any_other(self) -> None:
        p = IsotropicNormal(torch.arange(3.0).double(), torch.tensor(2.0).double())
        many = p.expand(torch.Size([4]))
        x = torch.randn(4, 3).double()
        assert many.batch_shape == (4,)
        torch.testing.assert_close(many.log_prob(x), p.log_prob(x))


class TestKL:
    def test_is_the_closed_form_by_hand(self) -> None:
        q, p = two_gaussians(6, 3)
        mean, var = q.mean - p.mean, q.variance / p.variance
        by_hand = 0.5 * (var + mean.square() / p.variance - 1 - var.log()).sum(-1)
        assert kl_divergence(q, p, q.rsample()).shape == (6,)
        assert torch.allclose(kl_divergence(q, p, q.rsample()), by_hand, rtol=0, atol=1e-12)

    def test_to_the_standard_gaussian_is_the_formula_of_the_paper(self) -> None:
        q, _ = two_gaussians(6, 3)
        p = diagonal_normal(torch.zeros(3).double(), torch.ones(3).double())
        mean, logvar_range = q.mean, q.variance.log()
        paper = -0.5 * (1 + logvar_range - mean**2 - logvar_range.exp()).sum(-1)
        assert torch.allclose(kl_divergence(q, p, mean), paper, rtol=0, atol=1e-12)
        assert torch.allclose(kl_divergence(p, p, mean), torch.zeros(1).double(), atol=1e-15)

    def test_is_the_one_of_torch(self) -> None:
        q, p = two_gaussians(6, 3)
        laplace = Independent(Laplace(q.mean, q.stddev), 1)
        for posterior in (q, laplace):
            theirs = torch_kl.kl_divergence(posterior, p)
            assert kl_divergence(posterior, p, posterior.rsample()).equal(theirs)

    def test_is_the_mean_of_the_log_ratio(self) -> None:
        q, p = two_gaussians(6, 3)
        ratio = q.log_prob(z := q.sample((20_000,))) - p.log_prob(z)
        error = 5 * ratio.std(0) / math.sqrt(len(ratio))
        assert ((kl_divergence(q, p, z) - ratio.mean(0)).abs() < error).all()

    def test_is_not_symmetric(self) -> None:
        q, p = two_gaussians(6, 3)
        z = q.rsample()
        assert ((kl_divergence(q, p, z) - kl_divergence(p, q, z)).abs() > 1e-3).all()

    def test_without_a_closed_form_is_one_sample_of_the_log_ratio(self) -> None:
        q, p = two_gaussians(6, 3)[0], mixture(3)
        with pytest.raises(NotImplementedError):
            torch_kl.kl_divergence(q, p)
        z = q.rsample()
        assert kl_divergence(q, p, z).equal(q.log_prob(z) - p.log_prob(z))

    def test_by_samples_is_unbiased(self) -> None:
        """A mixture of four equal components is a Gaussian: the estimate's mean is its KL."""
        q, p = two_gaussians(4, 3)
        many = p.expand(torch.Size((4,)))
        same = MixtureSameFamily(Categorical(torch.ones(4).double()), many)
        estimates = torch.stack([kl_divergence(q, same, z) for z in q.sample((2_000,))])
        error = 5 * estimates.std(0) / math.sqrt(len(estimates))
        assert ((estimates.mean(0) - kl_divergence(q, p, q.mean)).abs() < error).all()

    def test_of_its_own_wins(self) -> None:
        class WithKL(Independent):
            def kl_divergence(self, prior: Distribution, z: Tensor) -> Tensor:
                return z.sum(-1) + prior.mean.sum()

        posterior = WithKL(Normal(torch.zeros(2, 3), torch.ones(2, 3)), 1)
        prior = diagonal_normal(torch.ones(3), torch.ones(3))
        assert kl_divergence(posterior, prior, torch.ones(2, 3)).tolist() == [6.0, 6.0]

    @pytest.mark.parametrize("event", [(5,), (4, 3, 2), (1, 1, 1)])
    def test_of_latents_of_any_shape_is_one_number_an_example(self, event: tuple[int, ...]) -> None:
        loc, scale = torch.randn(7, *event), torch.rand(7, *event) + 0.5
        q = diagonal_normal(loc, scale, len(event))
        p = diagonal_normal(torch.zeros(event), torch.ones(event), len(event))
        flat = diagonal_normal(loc.flatten(1), scale.flatten(1))
        flat_p = diagonal_normal(torch.zeros(loc[0].numel()), torch.ones(loc[0].numel()))
        assert q.batch_shape == (7,)
        assert q.event_shape == event
        rate = kl_divergence(q, p, q.rsample())
        assert rate.shape == (7,)
        assert torch.allclose(rate, kl_divergence(flat, flat_p, flat.rsample()), rtol=1e-5)

    def test_carries_gradients(self) -> None:
        loc = torch.tensor([[1.5, -2.0]], requires_grad=True)
        p = diagonal_normal(torch.zeros(2), torch.ones(2))
        kl_divergence(diagonal_normal(loc, torch.ones(1, 2)), p, loc).sum().backward()
        assert loc.grad is not None
        assert loc.grad.tolist() == [[1.5, -2.0]]


class TestDiagonalNormalFrom:
    def test_first_half_is_the_mean_second_the_log_variance(self) -> None:
        q = gaussian_from_params(torch.tensor([[1.0, 2.0, math.log(9.0), math.log(0.25)]]))
        assert q.mean.tolist() == [[1.0, 2.0]]
        assert torch.allclose(q.stddev, torch.tensor([[3.0, 0.5]]))

    def test_no_log_variance_makes_it_degenerate(self) -> None:
        parameters = torch.zeros(2, 4)
        parameters[0, 2:], parameters[1, 2:] = 1e6, -1e6
        q = gaussian_from_params(parameters)
        assert torch.allclose(q.variance.log(), torch.tensor([[20.0], [-20.0]]).expand(2, 2))
        prior = diagonal_normal(torch.zeros(2), torch.ones(2))
        assert kl_divergence(q, prior, q.mean).isfinite().all()

    def test_an_ordinary_log_variance_is_left_alone(self) -> None:
        parameters = torch.tensor([[0.0, -15.0], [0.0, 15.0]]).double()
        variance = gaussian_from_params(parameters).variance
        assert torch.allclose(variance.log(), parameters[:, 1:], rtol=0, atol=1e-12)

    def test_spatial_parameters(self) -> None:
        q = gaussian_from_params(torch.randn(5, 8, 3, 2))
        assert q.batch_shape == (5,)
        assert q.event_shape == (4, 3, 2)
        assert q.log_prob(q.rsample()).shape == (5,)

    def test_along_another_dimension(self) -> None:
        parameters = torch.randn(5, 3, 8)
        q = gaussian_from_params(parameters, dim=-1)
        assert q.mean.equal(parameters[..., :4])
        assert q.batch_shape == (5,)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_is_summed_in_full(self, dtype: torch.dtype) -> None:
        """4096 terms of about 0.5: in bfloat16 the sum would stick after 256."""
        parameters = torch.randn(2, 8192, generator=torch.manual_seed(0)).to(dtype)
        prior = diagonal_normal(torch.zeros(4096), torch.ones(4096))
        q = gaussian_from_params(parameters)
        assert q.mean.dtype == torch.float32
        exact = gaussian_from_params(parameters.double())
        exact_prior = diagonal_normal(torch.zeros(4096).double(), torch.ones(4096).double())
        rate = kl_divergence(q, prior, q.mean).double()
        assert torch.allclose(rate, kl_divergence(exact, exact_prior, exact.mean), rtol=1e-5)

    def test_full_and_double_precision_are_kept(self) -> None:
        for dtype in (torch.float32, torch.float64):
            values = torch.ones(2, dtype=dtype)
            assert to_float32(values) is values


class TestLogMeanExp:
    def test_by_hand(self) -> None:
        values = torch.tensor([[0.0, 1.0], [math.log(3.0), 1.0]], dtype=torch.float64)
        expected = torch.tensor([math.log(2.0), 1.0], dtype=torch.float64)
        assert torch.allclose(log_mean_exp(values, 0), expected, rtol=0, atol=1e-15)

    def test_over_the_dimension_asked_for(self) -> None:
        values = torch.randn(3, 5).double()
        assert torch.allclose(log_mean_exp(values, 1), values.exp().mean(1).log())
        assert torch.allclose(log_mean_exp(values, 0), values.exp().mean(0).log())

    @pytest.mark.parametrize("shift", [-1e4, 1e4])
    def test_neither_overflows_nor_underflows(self, shift: float) -> None:
        values = torch.tensor([0.0, 1.0, 2.0]).double()
        expected = log_mean_exp(values) + shift
        assert torch.allclose(log_mean_exp(values + shift), expected, rtol=0, atol=1e-9)

    def test_one_value_is_itself_and_infinitely_unlikely_ones_count(self) -> None:
        assert log_mean_exp(torch.tensor([[-3.25]])).item() == -3.25
        values = torch.tensor([-math.inf, 0.0])
        assert log_mean_exp(values).item() == pytest.approx(-math.log(2))


class TestPoint:
    def test_is_the_mean(self) -> None:
        q, _ = two_gaussians(4, 3)
        assert mode(q).equal(q.mean)

    def test_is_what_the_class_defines(self) -> None:
        class Shifted(Delta):
            @property
            def mode(self) -> Tensor:
                return self.value + 7.0

        value = torch.randn(4, 3)
        assert mode(Shifted(value)).equal(value + 7.0)
        assert mode(Delta(value)).equal(value)

    def test_is_a_sample_where_there_is_no_mean(self) -> None:
        base = diagonal_normal(torch.zeros(4, 3), torch.full((4, 3), 1e-6))
        flow = TransformedDistribution(base, [ExpTransform()])
        with pytest.raises(NotImplementedError):
            _ = flow.mean
        assert torch.allclose(mode(flow), torch.ones(4, 3), atol=1e-4)


class TestDelta:
    def test_every_sample_is_the_value_and_gradients_flow(self) -> None:
        value = torch.randn(5, 3, requires_grad=True)
        posterior = Delta(value)
        assert (posterior.batch_shape, posterior.event_shape) == ((5,), (3,))
        assert posterior.rsample().equal(value)
        assert posterior.rsample((4, 2)).shape == (4, 2, 5, 3)
        posterior.rsample((4,)).sum().backward()
        assert value.grad is not None
        assert value.grad.equal(torch.full((5, 3), 4.0))
        assert not posterior.sample().requires_grad

    def test_has_moments_and_no_density(self) -> None:
        posterior = Delta(torch.randn(5, 2, 3, 3), 3)
        assert posterior.event_shape == (2, 3, 3)
        assert mode(posterior).equal(posterior.mode)
        assert not posterior.variance.any()
        with pytest.raises(NotImplementedError):
            posterior.log_prob(posterior.mean)

    def test_has_no_rate(self) -> None:
        posterior, (_, prior) = Delta(torch.randn(5, 3).double()), two_gaussians(5, 3)
        with pytest.raises(NotImplementedError):
            kl_divergence(posterior, prior, posterior.rsample())


class TestDraw:
    def test_scales_distances_from_the_mean(self) -> None:
        prior = diagonal_normal(torch.tensor([5.0, -1.0]), torch.tensor([2.0, 0.5]))
        torch.manual_seed(0)
        as_it_is = sample_prior(prior, 4)
        torch.manual_seed(0)
        narrow = sample_prior(prior, 4, 0.25)
        assert torch.allclose(narrow - prior.mean, 0.25 * (as_it_is - prior.mean))
        assert sample_prior(prior, 4, 0.0).equal(prior.mean.expand(4, 2))

    def test_asks_a_prior_that_knows_better(self) -> None:
        class Knows(Independent):
            def with_temperature(self, temperature: float) -> Distribution:
                return diagonal_normal(torch.full((2,), temperature), torch.zeros(2))

        prior = Knows(Normal(torch.zeros(2), torch.ones(2)), 1)
        assert sample_prior(prior, 3, 0.5).equal(torch.full((3, 2), 0.5))
        torch.manual_seed(0)
        as_it_is = prior.sample((3,))
        torch.manual_seed(0)
        assert sample_prior(prior, 3).equal(as_it_is)

    def test_a_prior_without_mean_says_so_in_one_line(self) -> None:
        flow = TransformedDistribution(
            diagonal_normal(torch.zeros(3), torch.ones(3)), ExpTransform()
        )
        assert sample_prior(flow, 4).shape == (4, 3)
        with pytest.raises(OptionError, match=r"--temperature 0\.5: .* no spread to scale$"):
            sample_prior(flow, 4, 0.5)

    def test_many_of_one_and_one_of_each(self) -> None:
        _, prior = two_gaussians(6, 3)
        assert sample_prior(prior, 7).shape == (7, 3)
        labelled = diagonal_normal(100.0 * torch.arange(4.0)[:, None], torch.ones(4, 1))
        assert (sample_prior(labelled, 4)[:, 0] / 100).round().tolist() == [0, 1, 2, 3]
