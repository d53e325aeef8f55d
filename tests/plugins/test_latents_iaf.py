"""The flow: its masks, its Jacobian, its inverse, and the density that follows from them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from vaezoo import DataSpec, create_model
from vaezoo.models.distributions import diagonal_normal, kl_divergence, mode
from vaezoo_latents.flow import Flow, FlowStep
from vaezoo_latents.iaf import FlowPosterior, IAFBottleneck
from vaezoo_latents.made import MADE

SIZES = [(1, 1), (2, 3), (5, 4), (12, 2)]
"""Of the latent and of the context."""


def wild(network: torch.nn.Module, by: float = 0.5) -> Any:
    """Weights moved from where they start, so that every dependence shows. In double precision."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=generator))
    return network.double()


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.manual_seed(sum(shape)))


class TestMade:
    def test_each_layer_has_one_bias_the_context_none_of_its_own(self) -> None:
        made = MADE(5, 4, (16, 9), outputs=2)
        weights = 5 * 16 + 4 * 16 + 16 * 9 + 9 * 10
        assert sum(p.numel() for p in made.parameters()) == weights + 16 + 9 + 10

    @pytest.mark.parametrize("reverse", [False, True])
    @pytest.mark.parametrize("hidden", [(7,), (30,), (16, 9)])
    @pytest.mark.parametrize(("n", "c"), SIZES)
    def test_an_output_knows_the_inputs_before_it_and_the_context(
        self, n: int, c: int, hidden: tuple[int, ...], reverse: bool
    ) -> None:
        made = wild(MADE(n, c, hidden, outputs=2, reverse=reverse))
        x, context = numbers(n), numbers(c)
        by_input, by_context = torch.autograd.functional.jacobian(made, (x, context))
        assert by_input.shape == (2, n, n)
        allowed = torch.ones(n, n).tril(-1).bool()
        allowed = allowed.T if reverse else allowed
        assert (by_input[:, ~allowed] == 0).all()
        if min(hidden) >= n:
            assert (by_input[:, allowed] != 0).all()
        assert (by_context != 0).all()

    def test_takes_leading_dimensions_and_spreads_the_context(self) -> None:
        made = wild(MADE(3, 2, (8,), outputs=2))
        x, context = numbers(4, 5, 3), numbers(5, 2)
        whole = made(x, context)
        assert whole.shape == (4, 5, 2, 3)
        assert torch.allclose(whole[1, 2], made(x[1, 2], context[2]))


class TestStep:
    @pytest.mark.parametrize("reverse", [False, True])
    @pytest.mark.parametrize(("n", "c"), SIZES)
    def test_jacobian_is_triangular_with_the_gates_on_its_diagonal(
        self, n: int, c: int, reverse: bool
    ) -> None:
        step = wild(FlowStep(n, c, (20,), reverse))
        z, context = numbers(n), numbers(c)
        jacobian = torch.autograd.functional.jacobian(lambda v: step(v, context)[0], z)
        _, s = step.network(z, context)
        assert torch.allclose(jacobian.diagonal(), torch.sigmoid(s))
        outside = jacobian.tril(-1) if reverse else jacobian.triu(1)
        assert outside.equal(torch.zeros(n, n).double())

    def test_is_the_gated_update_by_hand(self) -> None:
        step = wild(FlowStep(4, 2, (9,), False))
        z, context = numbers(4), numbers(2)
        m, s = step.network(z, context)
        gate = 1 / (1 + torch.exp(-s))
        assert torch.allclose(step(z, context)[0], gate * z + (1 - gate) * m)
        assert torch.allclose(step(z, context)[1], gate.log().sum())

    @pytest.mark.parametrize("shift", [-300.0, 300.0])
    def test_closed_and_open_gates_stay_finite(self, shift: float) -> None:
        """log(sigmoid(-300)) would be -inf in single precision."""
        step = FlowStep(4, 2, (9,), False)
        with torch.no_grad():
            step.network.rest[-1].bias[4:].add_(shift)
        z, log_det = step(torch.randn(4), torch.randn(2))
        assert z.isfinite().all()
        assert log_det.item() == pytest.approx(4 * min(shift, 0.0), abs=15)
        gradients = torch.autograd.grad(log_det, step.network.rest[-1].bias)
        assert gradients[0].isfinite().all()

    def test_starts_near_the_identity(self) -> None:
        step = FlowStep(8, 4, (32,), False)
        z = torch.randn(500, 8)
        after, log_det = step(z, torch.randn(500, 4))
        assert ((after - z).square().mean() / z.square().mean()).item() < 0.1
        assert log_det.mean().item() / 8 == pytest.approx(
            math.log(torch.sigmoid(torch.tensor(2.0))), abs=0.1
        )


class TestFlow:
    @pytest.mark.parametrize("steps", [0, 1, 2, 5])
    @pytest.mark.parametrize(("n", "c"), SIZES)
    def test_log_determinant_is_autograds(self, n: int, c: int, steps: int) -> None:
        flow = wild(Flow(n, c, (20,), steps), 0.2)
        z, context = numbers(n), numbers(c)
        jacobian = torch.autograd.functional.jacobian(lambda v: flow(v, context)[0], z)
        expected = torch.linalg.slogdet(jacobian).logabsdet
        assert torch.allclose(flow(z, context)[1], expected, rtol=1e-6, atol=1e-8)

    def test_the_order_is_reversed_between_steps(self) -> None:
        """After two steps every coordinate depends on every other; after one it does not."""
        for steps, full in ((1, False), (2, True)):
            flow = wild(Flow(4, 2, (20,), steps))
            context = numbers(2)
            jacobian = torch.autograd.functional.jacobian(
                lambda v, f=flow, h=context: f(v, h)[0], numbers(4)
            )
            assert (jacobian != 0).all().item() == full

    @pytest.mark.parametrize("steps", [0, 1, 4])
    @pytest.mark.parametrize(("n", "c"), SIZES)
    def test_inverse_undoes_it(self, n: int, c: int, steps: int) -> None:
        flow = wild(Flow(n, c, (20,), steps), 0.2)
        z, context = numbers(3, 6, n), numbers(6, c)
        there, log_det = flow(z, context)
        back, same_log_det = flow.inverse(there, context)
        assert torch.allclose(back, z, rtol=0, atol=1e-7)
        assert torch.allclose(same_log_det, log_det, rtol=0, atol=1e-7)


def posterior(n: int = 2, steps: int = 3, batch: int = 1) -> FlowPosterior:
    flow = wild(Flow(n, 3, (16,), steps), 0.3)
    loc = torch.linspace(-1, 1, batch * n).double().reshape(batch, n)
    return FlowPosterior(diagonal_normal(loc, 0.5 + loc.square()), flow, numbers(batch, 3))


class TestPosterior:
    def test_density_integrates_to_one(self) -> None:
        """By the inverse, on a grid over the plane."""
        axis = torch.linspace(-8, 8, 321, dtype=torch.float64)
        grid = torch.cartesian_prod(axis, axis)[:, None]
        with torch.no_grad():
            mass = posterior().log_prob(grid).exp().sum() * (axis[1] - axis[0]) ** 2
        assert mass.item() == pytest.approx(1, abs=1e-3)

    def test_of_a_value_far_away_is_low_and_finite(self) -> None:
        far = posterior().log_prob(torch.tensor([[[1e4, -1e4]], [[-30.0, 1e6]]]).double())
        assert far.isfinite().all()
        assert (far < -1e3).all()

    def test_own_draws_and_any_other_value_get_the_same_density(self) -> None:
        q = posterior(n=5, batch=4)
        z = q.rsample((7,))
        assert z.shape == (7, 4, 5)
        known = q.log_prob(z)
        assert known.shape == (7, 4)
        assert torch.allclose(q.log_prob(z.clone()), known, rtol=0, atol=1e-7)

    def test_the_density_of_the_last_draw_needs_no_way_back(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        q = posterior(batch=4)
        assert q.has_rsample
        z, inverted = q.rsample(), []
        honest = Flow.inverse
        monkeypatch.setattr(Flow, "inverse", lambda *a: inverted.append(1) or honest(*a))
        q.log_prob(z)
        assert inverted == []
        q.log_prob(z.clone())
        assert inverted == [1]

    def test_an_older_draw_is_not_mistaken_for_the_last(self) -> None:
        q = posterior(batch=4)
        first = q.rsample()
        known = q.log_prob(first)
        second = q.rsample()
        assert torch.allclose(q.log_prob(first), known, rtol=0, atol=1e-7)
        assert not torch.allclose(q.log_prob(second), known)

    def test_gradients_at_a_fixed_value_are_those_of_the_density(self) -> None:
        """By finite differences of the flow's first weight: the way back is differentiable."""
        q = posterior(batch=2)
        z = q.sample()
        weight = q.flow.steps[0].network.first.weight
        (gradient,) = torch.autograd.grad(q.log_prob(z.clone()).sum(), weight)
        with torch.no_grad():
            weight[0, 0] += 1e-5
            up = q.log_prob(z.clone()).sum()
            weight[0, 0] -= 2e-5
            down = q.log_prob(z.clone()).sum()
        assert gradient[0, 0].item() == pytest.approx(((up - down) / 2e-5).item(), rel=1e-4)

    def test_without_steps_it_is_the_gaussian(self) -> None:
        q = posterior(n=3, steps=0, batch=2)
        z = q.rsample()
        assert torch.allclose(q.log_prob(z), q.base.log_prob(z))
        assert q.mode.equal(q.base.mean)

    def test_mode_is_deterministic(self) -> None:
        q = posterior(batch=3)
        assert mode(q).equal(mode(q))
        assert mode(q).shape == (3, 2)


def test_the_rate_of_a_flow_that_cannot_move_is_that_of_a_gaussian() -> None:
    """Gates open: the single-sample estimates average to the closed form."""
    torch.manual_seed(0)
    data = DataSpec(shape=(5,), domain="real")
    model = create_model("iaf", data, network="mlp", hidden=(8,), latent_dim=3, flow_hidden=(8,))
    assert isinstance(model.bottleneck, IAFBottleneck)
    with torch.no_grad():
        for step in model.bottleneck.flow.steps:
            step.network.rest[-1].bias[3:].add_(40.0)
    q = model.encode(torch.randn(6, 5))
    closed = kl_divergence(q.base, model.prior(), q.base.mean)
    estimates = kl_divergence(q, model.prior(), q.rsample((4_000,)))
    error = 5 * estimates.std(0) / 4_000**0.5
    assert ((estimates.mean(0) - closed).abs() < error).all()
