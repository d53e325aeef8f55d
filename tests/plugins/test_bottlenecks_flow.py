"""Planar and radial flows: Jacobians, inverses, constraints, and the density that follows."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from vaezoo.models.distributions import diagonal_normal, kl_divergence, mode
from vaezoo_bottlenecks.flow import FlowBottleneck, FlowPosterior, FlowStep, positive
from vaezoo_bottlenecks.options import FlowOptions
from vaezoo_bottlenecks.planar_flow import PlanarFlowBottleneck, PlanarStep, solve_tanh
from vaezoo_bottlenecks.radial_flow import RadialFlowBottleneck, RadialStep

FLOWS = {"planar": PlanarFlowBottleneck, "radial": RadialFlowBottleneck}

every_flow = pytest.mark.parametrize("name", list(FLOWS))


def numbers(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape) + seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def bottleneck(
    name: str, n: int, steps: int = 3, grid: tuple[int, ...] = (), **options: Any
) -> FlowBottleneck:
    options = {"latent_dim": n, "flow_steps": steps, "latent_grid": bool(grid), **options}
    return FLOWS[name](FlowOptions(**options), grid).double()


def a_step(name: str, n: int, batch: int = 6, size: float = 2.0) -> FlowStep:
    """Steps with large parameters, another one for each of the batch."""
    made = bottleneck(name, n)
    return made.step(size * numbers(batch, made.step_params))


def a_posterior(
    name: str, n: int = 2, batch: int = 1, grid: tuple[int, ...] = (), size: float = 1.0
) -> FlowPosterior:
    made = bottleneck(name, n, grid=grid)
    return made(size * numbers(batch, made.num_params, *grid))


def jacobian(step: FlowStep, z: Tensor) -> Tensor:
    """Of each vector by itself: [batch, n, n]."""
    total = torch.autograd.functional.jacobian(lambda v: step.forward(v)[0].sum(0), z)
    return total.movedim(1, 0)


@every_flow
class TestStep:
    @pytest.mark.parametrize("n", [1, 2, 5])
    @pytest.mark.parametrize("size", [0.3, 3.0])
    def test_log_determinant_is_autograds(self, name: str, n: int, size: float) -> None:
        step, z = a_step(name, n, batch=40, size=size), numbers(40, n)
        det = torch.linalg.det(jacobian(step, z))
        assert (det > 0).all()  # it keeps the orientation everywhere
        assert torch.allclose(step.forward(z)[1], det.log(), rtol=1e-6, atol=1e-7)

    @pytest.mark.parametrize("n", [1, 2, 30])
    @pytest.mark.parametrize("size", [0.3, 3.0])
    @pytest.mark.parametrize("far", [1e-6, 1.0, 1e3])
    def test_inverse_undoes_it(self, name: str, n: int, size: float, far: float) -> None:
        step, z = a_step(name, n, batch=50, size=size), far * numbers(7, 50, n)
        there, log_det = step.forward(z)
        back, same = step.inverse(there)
        assert torch.allclose(back, z, rtol=1e-9, atol=1e-9)
        assert torch.allclose(same, log_det, rtol=0, atol=1e-8)

    def test_inverse_undoes_it_in_single_precision(self, name: str) -> None:
        made = bottleneck(name, 8).float()
        step, z = made.step(numbers(200, made.step_params).float()), numbers(200, 8).float()
        back, _ = step.inverse(step.forward(z)[0])
        assert torch.allclose(back, z, rtol=0, atol=2e-4)

    def test_zeros_are_the_identity(self, name: str) -> None:
        made, z = bottleneck(name, 4), numbers(3, 4)
        after, log_det = made.step(torch.zeros(3, made.step_params).double()).forward(z)
        assert torch.allclose(after, z)
        assert torch.allclose(log_det, torch.zeros(3).double())

    @pytest.mark.parametrize("size", [1e-9, 1e2, 1e6])
    def test_extreme_parameters_give_finite_values_and_gradients(
        self, name: str, size: float
    ) -> None:
        made = bottleneck(name, 5).float()
        signs = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0])] * 3)
        params = size * signs.repeat(1, 4)[:, : made.step_params]
        for z in (torch.zeros(27, 5), 1e3 * torch.randn(27, 5)):
            leaves = [params.clone().requires_grad_(), z.clone().requires_grad_()]
            for run in (lambda a, b: made.step(a).forward(b), lambda a, b: made.step(a).inverse(b)):
                after, log_det = run(*leaves)
                found = torch.autograd.grad(after.sum() + log_det.sum(), leaves)
                for value in (after, log_det, *found):
                    assert value.isfinite().all()


class TestPlanar:
    def test_is_equation_10_with_the_constraint_of_the_appendix(self) -> None:
        u, w, b, z = numbers(9, 4), numbers(9, 4, seed=1), numbers(9), numbers(9, 4, seed=2)
        step = PlanarStep(u, w, b)
        after = z + step.u * torch.tanh((w * z).sum(-1) + b)[:, None]
        assert torch.allclose(step.forward(z)[0], after)
        product = (w * u).sum(-1)
        # A.1: u moves along w only, so that w·û is a function of w·u alone.
        assert torch.allclose((w * step.u).sum(-1), positive(product) - 1)
        along = torch.nn.functional.normalize(w, dim=-1)
        moved = step.u - u
        rest = moved - (moved * along).sum(-1, keepdim=True) * along
        assert torch.allclose(rest, torch.zeros(9, 4).double())

    def test_a_step_that_would_fold_space_does_not(self) -> None:
        """u = −3 w / |w|² without the constraint maps three points to one."""
        w = torch.tensor([[2.0, 0.0]]).double()
        step = PlanarStep(-3 * w / w.square().sum(), w, torch.zeros(1).double())
        line = torch.stack([torch.linspace(-3, 3, 601), torch.zeros(601)], 1).double()
        assert (step.forward(line)[0][:, 0].diff() > 0).all()
        assert (w * step.u).sum() > -1

    @pytest.mark.parametrize("t", [-0.999, -0.5, 0.0, 1.0, 1e3, 1e6])
    def test_root_is_found_to_the_last_digits(self, t: float) -> None:
        a = torch.cat([-torch.logspace(-9, 5, 57), torch.zeros(1), torch.logspace(-9, 5, 57)])
        a = a.double()
        found = solve_tanh(torch.tensor(t, dtype=torch.float64), a + t * torch.tanh(a))
        tanh_slope = 1 - torch.tanh(a).square()
        noise = (a.abs() + abs(t) * torch.tanh(a).abs()) / (1 + t * tanh_slope)
        assert ((found - a).abs() <= 1e-14 * noise + 1e-15).all()

    def test_root_has_the_gradients_of_the_implicit_function(self) -> None:
        t, c = numbers(6).abs().requires_grad_(), (3 * numbers(6, seed=1)).requires_grad_()
        assert torch.autograd.gradcheck(solve_tanh, (t, c))
        below = (t.detach() / (1 + t.detach()) * -0.9).requires_grad_()
        assert torch.autograd.gradcheck(solve_tanh, (below, c))


class TestRadial:
    def test_is_equation_14(self) -> None:
        center, alpha, beta, z = numbers(9, 3), numbers(9), 2 * numbers(9, seed=1), numbers(9, 3)
        step = RadialStep(center, alpha, beta)
        by_hand = step.alpha * (step.k - 1)  # β
        assert (by_hand > -step.alpha).all()
        offset = z + 1 - center
        h = 1 / (step.alpha + offset.norm(dim=-1))
        assert torch.allclose(step.forward(z + 1)[0], z + 1 + (by_hand * h)[:, None] * offset)

    def test_at_the_center_it_scales_all_directions(self) -> None:
        step = RadialStep(numbers(4, 3), numbers(4), numbers(4))
        z = step.center.clone().requires_grad_()
        after, log_det = step.forward(z)
        assert torch.allclose(after, z)
        assert torch.allclose(log_det, 3 * step.k.log())
        assert torch.autograd.grad(log_det.sum(), z)[0].isfinite().all()


@every_flow
class TestPosterior:
    def test_density_integrates_to_one(self, name: str) -> None:
        """By the inverse, on a grid over the plane."""
        axis = torch.linspace(-14, 14, 401, dtype=torch.float64)
        plane = torch.cartesian_prod(axis, axis)[:, None]
        mass = a_posterior(name).log_prob(plane).exp().sum() * (axis[1] - axis[0]) ** 2
        assert mass.item() == pytest.approx(1, abs=1e-3)

    def test_samples_have_that_density(self, name: str) -> None:
        """Counts of 200,000 samples in boxes, against the integral of the density over each."""
        torch.manual_seed(0)
        q, count = a_posterior(name), 200_000
        z = q.rsample((count,))[:, 0]
        low, high = torch.quantile(z[:100_000], 0.01, 0), torch.quantile(z[:100_000], 0.99, 0)
        boxes, fine = 6, 24
        share = torch.linspace(0, 1, boxes + 1, dtype=torch.float64)
        edges = [low[d] + (high[d] - low[d]) * share for d in (0, 1)]
        found = torch.histogramdd(z, edges).hist / count
        middle = (torch.arange(boxes * fine) + 0.5).double() / (boxes * fine)
        inner = [low[d] + (high[d] - low[d]) * middle for d in (0, 1)]
        density = q.log_prob(torch.cartesian_prod(*inner)[:, None]).exp()
        area = (high - low).prod() / (boxes * fine) ** 2
        expected = area * density.view(boxes, fine, boxes, fine).sum((1, 3))
        error = (expected * (1 - expected) / count).sqrt()
        assert expected.sum() > 0.9
        assert ((found - expected).abs() < 5 * error + 1e-4).all()

    def test_own_samples_and_any_other_value_get_the_same_density(self, name: str) -> None:
        for grid in ((), (3, 2)):
            q = a_posterior(name, n=5, batch=4, grid=grid)
            z = q.rsample((7,))
            assert z.shape == (7, 4, 5, *grid)
            known = q.log_prob(z)
            assert known.shape == (7, 4)
            assert torch.allclose(q.log_prob(z.clone()), known, rtol=0, atol=1e-7)
            q.rsample((7,))  # another one: z is no longer the last
            assert torch.allclose(q.log_prob(z), known, rtol=0, atol=1e-7)

    def test_gradients_at_a_fixed_value_are_those_of_the_density(self, name: str) -> None:
        made = bottleneck(name, 3, steps=2)
        params = numbers(2, made.num_params).requires_grad_()
        z = numbers(2, 3)
        assert torch.autograd.gradcheck(lambda p, v: made(p).log_prob(v), (params, z))

    def test_gradients_of_samples_are_those_of_the_map(self, name: str) -> None:
        """By finite differences with the same noise."""
        made = bottleneck(name, 3, steps=2)

        def draw(params: Tensor) -> tuple[Tensor, Tensor]:
            torch.manual_seed(1)
            q = made(params)
            z = q.rsample()
            return z, q.log_prob(z)

        assert torch.autograd.gradcheck(draw, numbers(2, made.num_params).requires_grad_())

    def test_a_grid_has_a_flow_of_its_own_at_each_position(self, name: str) -> None:
        on_grid, alone = bottleneck(name, 4, grid=(2, 3)), bottleneck(name, 4)
        params, z = numbers(5, on_grid.num_params, 2, 3), numbers(5, 4, 2, 3)
        positions = [(i, j) for i in range(2) for j in range(3)]
        each = [alone(params[:, :, i, j]).log_prob(z[:, :, i, j]) for i, j in positions]
        q = on_grid(params)
        assert torch.allclose(q.log_prob(z), torch.stack(each).sum(0))
        assert q.event_shape == on_grid.latent_shape == (4, 2, 3)
        for i, j in positions:
            assert torch.allclose(mode(q)[:, :, i, j], mode(alone(params[:, :, i, j])))

    def test_without_steps_it_is_the_gaussian(self, name: str) -> None:
        made = bottleneck(name, 3, steps=0)
        params = numbers(2, made.num_params)
        q, z = made(params), numbers(2, 3)
        gaussian = diagonal_normal(params[:, :3], (0.5 * params[:, 3:]).exp())
        assert torch.allclose(q.log_prob(z), gaussian.log_prob(z))
        assert q.mode.equal(gaussian.mean)

    def test_the_estimated_rate_is_the_closed_one_where_there_is_one(self, name: str) -> None:
        """A flow of identities: the mean of single-sample estimates, within 5 standard errors."""
        torch.manual_seed(0)
        made = bottleneck(name, 3)
        params = numbers(2, made.num_params)
        params[:, 6:] = 0
        q, prior = made(params), made.prior()
        closed = kl_divergence(diagonal_normal(q.base.loc, q.base.scale), prior, q.base.loc)
        z = q.rsample((20_000,))
        estimates = q.log_prob(z) - prior.log_prob(z)
        error = 5 * estimates.std(0) / math.sqrt(20_000)
        assert ((estimates.mean(0) - closed).abs() < error).all()
        assert kl_divergence(q, prior, z[0]).shape == (2,)

    def test_half_precision_features_give_single_precision_latents(self, name: str) -> None:
        made = bottleneck(name, 4).float()
        with torch.autocast("cpu", torch.bfloat16):
            q = made(numbers(2, made.num_params).bfloat16())
            z = q.rsample()
            assert z.dtype == q.log_prob(z).dtype == q.log_prob(z.clone()).dtype == torch.float32
            assert torch.allclose(q.log_prob(z.clone()), q.log_prob(z), atol=1e-3)
