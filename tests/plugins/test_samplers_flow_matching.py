"""Flow matching recovers known distributions, classes and codes, and follows its equations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

import vaezoo
from small_jobs import SMALL_JOB
from vaezoo import LatentSpec
from vaezoo.errors import OptionError
from vaezoo_samplers.flow_matching import FlowMatchingSampler, integrate
from vaezoo_samplers.options import FlowMatchingOptions
from vaezoo_samplers.unet import UNetVelocity

CENTERS = torch.tensor([[-3.0, 0.0], [4.0, 2.0]])
WEIGHTS = torch.tensor([0.7, 0.3])


def make(latent: LatentSpec, **options: Any) -> FlowMatchingSampler:
    small = {"steps": 0, "width": 64, "layers": 2, "lr": 3e-3}
    torch.manual_seed(0)
    return FlowMatchingSampler(FlowMatchingOptions(**{**small, **options}), latent).eval()


def mixture(n: int = 10_000) -> tuple[Tensor, Tensor]:
    y = torch.multinomial(WEIGHTS, n, True, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(n, 2, generator=torch.Generator().manual_seed(2))
    return CENTERS[y] + 0.5 * noise, y


@pytest.fixture(scope="module")
def fitted() -> FlowMatchingSampler:
    """Fitted to the mixture with its components as classes."""
    sampler = make(LatentSpec((2,), num_classes=2), steps=500, conditional=True)
    sampler.fit(*mixture())
    return sampler


def draw(sampler: FlowMatchingSampler, n: int, y: Tensor | None = None) -> Tensor:
    torch.manual_seed(3)
    found = sampler.distribution(y)
    return found.sample(torch.Size(() if y is not None else (n,)))


class TestRecovery:
    def test_of_a_mixture(self, fitted: FlowMatchingSampler) -> None:
        """The share of each mode, its mean and its standard deviation, without classes."""
        z = draw(fitted, 4000)
        left = z[:, 0] < 0.5
        assert float(left.float().mean()) == pytest.approx(0.7, abs=0.04)
        for part, center in zip((z[left], z[~left]), CENTERS, strict=True):
            torch.testing.assert_close(part.mean(0), center, atol=0.25, rtol=0)
            assert ((part.std(0) > 0.35) & (part.std(0) < 1.0)).all()

    def test_of_classes(self, fitted: FlowMatchingSampler) -> None:
        y = torch.arange(2).repeat(1000)
        z = draw(fitted, 2000, y)
        assert z.shape == (2000, 2)
        for number, center in enumerate(CENTERS):
            torch.testing.assert_close(z[y == number].mean(0), center, atol=0.2, rtol=0)
            assert z[y == number].std(0).max() < 0.8

    def test_of_a_correlated_gaussian(self) -> None:
        factor = torch.tensor([[2.0, 0.0, 0.0], [1.5, 0.5, 0.0], [-1.0, 0.5, 3.0]])
        mean, noise = torch.tensor([5.0, 0.0, -5.0]), torch.randn(10_000, 3)
        sampler = make(LatentSpec((3,)), steps=300)
        sampler.fit(mean + noise @ factor.T)
        z = draw(sampler, 10_000)
        torch.testing.assert_close(z.mean(0), mean, atol=0.25, rtol=0)
        correlations = torch.corrcoef((noise @ factor.T).T)
        torch.testing.assert_close(torch.corrcoef(z.T), correlations, atol=0.06, rtol=0)

    def test_the_velocity_between_gaussians_is_the_closed_form(self) -> None:
        """From N(0, 1) to N(0, 1): E[z - noise | x_t] = (2t - 1) x / ((1 - t)² + t²)."""
        sampler = make(LatentSpec((1,)), steps=300, width=32)
        sampler.fit(7.0 + 3.0 * torch.randn(10_000, 1))
        x = torch.linspace(-1.5, 1.5, 7)[:, None]
        for t in (0.1, 0.5, 0.9):
            expected = (2 * t - 1) * x / ((1 - t) ** 2 + t**2)
            with torch.no_grad():
                found = sampler.network(x, torch.tensor([t]), None)
            torch.testing.assert_close(found, expected, atol=0.25, rtol=0)

    def test_of_a_grid(self) -> None:
        """All positions of an example are equal in the data; a network of points would not know."""
        levels = torch.randn(2000, 1, 1).expand(-1, 1, 5)
        sampler = make(LatentSpec((1, 5)), steps=250, width=256, batch_size=64, lr=5e-3)
        sampler.fit(10 * levels)
        z = draw(sampler, 500)
        assert z.shape == (500, 1, 5)
        assert z.std(2).mean() < 0.35 * z.mean(2).std()
        assert float(z.std()) == pytest.approx(10, rel=0.2)


class TestGuidance:
    def test_one_is_the_conditional_model(
        self, fitted: FlowMatchingSampler, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """To the bit, and the network runs once for each velocity."""
        x, t, y = torch.randn(8, 2), torch.tensor([0.3]), torch.arange(8) % 2
        calls: list[Tensor | None] = []
        hook = fitted.network.register_forward_pre_hook(lambda _, given: calls.append(given[2]))
        with torch.no_grad():
            found = fitted.guided_velocity(y)(x, t)
            assert len(calls) == 1
            assert found.equal(fitted.network(x, t, y))
        hook.remove()

    @pytest.mark.parametrize("guidance", [0.0, 0.5, 3.0])
    def test_moves_away_from_the_velocity_without_a_class(
        self, fitted: FlowMatchingSampler, guidance: float
    ) -> None:
        guided = make(LatentSpec((2,), num_classes=2), conditional=True, guidance=guidance)
        guided.load_state_dict(fitted.state_dict())
        x, t, y = torch.randn(8, 2), torch.tensor([0.3]), torch.arange(8) % 2
        with torch.no_grad():
            given, none = fitted.network(x, t, y), fitted.network(x, t, None)
            expected = (1 - guidance) * none + guidance * given
            torch.testing.assert_close(guided.guided_velocity(y)(x, t), expected)
            assert (given - none).abs().max() > 0.1

    def test_an_unknown_class_is_no_class(self, fitted: FlowMatchingSampler) -> None:
        x, t = torch.randn(4, 2), torch.tensor([0.3])
        with torch.no_grad():
            unknown = fitted.network(x, t, torch.full((4,), -1))
            assert unknown.equal(fitted.network(x, t, torch.full((4,), 2)))
            torch.testing.assert_close(unknown, fitted.network(x, t, None))

    def test_needs_classes(self) -> None:
        with pytest.raises(OptionError, match="has no classes"):
            make(LatentSpec((2,)), conditional=True)
        with pytest.raises(OptionError, match="has a class"):
            make(LatentSpec((2,), num_classes=2), conditional=True, steps=1).fit(torch.randn(9, 2))


class TestEquation:
    def test_heuns_method_is_of_second_order(self) -> None:
        """dx/dt = x from 1 ends at e, with an error that falls by four where steps double."""

        def error(steps: int) -> float:
            return abs(float(integrate(lambda x, t: x, torch.ones(1), steps)) - math.e)

        assert error(40) < 1e-3
        assert error(20) / error(40) == pytest.approx(4, rel=0.1)

    def test_the_time_runs_from_noise_to_latents(self) -> None:
        """dx/dt = 3t² ends one above its start, wherever the steps are."""
        end = integrate(lambda x, t: 3 * t.square() + 0 * x, torch.zeros(1), 100)
        assert float(end) == pytest.approx(1, abs=1e-3)

    def test_before_fitting_it_is_standard_gaussian(self) -> None:
        sampler = make(LatentSpec((3,)))
        assert not sampler.is_fitted
        drawn = draw(sampler, 5)
        torch.manual_seed(3)
        torch.testing.assert_close(drawn, torch.randn(5, 3))

    def test_temperature_scales_the_noise(self, fitted: FlowMatchingSampler) -> None:
        cold = fitted.distribution().with_temperature(0.0)
        assert cold.sample(torch.Size((2,))).unique(dim=0).shape[0] == 1
        spread = fitted.distribution().with_temperature(0.5).sample(torch.Size((2000,))).std(0)
        assert (spread < draw(fitted, 2000).std(0)).all()

    def test_the_averages_of_the_weights_are_kept(self) -> None:
        sampler, seen = make(LatentSpec((2,)), steps=4), []
        weight = sampler.network.get_parameter("last.bias")
        hook = register_optimizer_step_post_hook(lambda *_: seen.append(weight.detach().clone()))
        sampler.fit(torch.randn(100, 2) + 5)
        hook.remove()
        decay, expected = 1 - 10 / 14, seen[0]
        for value in seen[1:]:
            expected = decay * expected + (1 - decay) * value
        torch.testing.assert_close(sampler.network.get_parameter("last.bias"), expected)
        assert not torch.allclose(expected, seen[-1])

    def test_fitting_leaves_nothing_to_train(self, fitted: FlowMatchingSampler) -> None:
        assert not any(p.requires_grad for p in fitted.parameters())


@pytest.mark.parametrize("grid", [(7,), (1,), (5, 3), (28, 9), (3, 4, 6)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_grids_of_any_size(grid: tuple[int, ...], channels: int) -> None:
    """Shapes, one time for all or one each, and gradients to every parameter."""
    network = UNetVelocity(channels, grid, 8, 1, num_classes=3)
    x = torch.randn(2, channels, *grid)
    assert network(x, torch.rand(1), None).equal(torch.zeros_like(x))
    nn.init.normal_(network.last.weight)
    found = network(x, torch.rand(2), torch.tensor([0, 2]))
    assert found.shape == x.shape
    found.square().sum().backward()
    missing = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing in ([], ["attention.qkv.weight"]) or grid == (1,)


class Grid:
    """Four codes of two values, on a grid of two positions."""

    num_codes, code_dim = 4, 2
    codes = torch.tensor([[0.0, 0.0], [0.0, 9.0], [9.0, 0.0], [9.0, 9.0]])

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        return self.codes[indices].movedim(-1, -2)

    def codes_to_indices(self, z: Tensor) -> Tensor:
        return torch.cdist(z.movedim(-2, -1), self.codes).argmin(-1)


def test_codes_are_drawn_with_their_frequencies() -> None:
    """The second code of an example is always the opposite of the first."""
    book = Grid()
    first = torch.multinomial(torch.tensor([0.1, 0.2, 0.3, 0.4]), 2000, True)
    indices = torch.stack([first, 3 - first], 1).int()
    sampler = make(LatentSpec((2, 2), codebook=book), steps=250, width=128, batch_size=64, lr=5e-3)
    sampler.fit(indices)
    z = draw(sampler, 1000)
    found = book.codes_to_indices(z)
    assert book.indices_to_codes(found).equal(z)
    assert float((found.sum(1) == 3).float().mean()) > 0.8
    shares = torch.bincount(found[:, 0], minlength=4) / 1000
    torch.testing.assert_close(shares, torch.tensor([0.1, 0.2, 0.3, 0.4]), atol=0.1, rtol=0)


def test_the_components_are_uncorrelated_and_of_variance_one() -> None:
    """Over examples and positions, in the order of their variances; `unwhiten` is the inverse."""
    mixing = torch.tensor([[2.0, 0.0, 0.0], [5.0, 1.0, 0.0], [0.0, 3.0, 0.5]])
    z = torch.einsum("kc,nc...->nk...", mixing, torch.randn(500, 3, 3, 4)) + 7
    sampler = make(LatentSpec((3, 3, 4)), steps=1, batch_size=4)
    sampler.fit(z)
    flat = sampler.whiten(z).movedim(1, -1).flatten(0, -2)
    torch.testing.assert_close(torch.cov(flat.T, correction=0), torch.eye(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(flat.mean(0), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(sampler.unwhiten(sampler.whiten(z)), z, atol=1e-3, rtol=1e-4)
    assert sampler.std.diff().max() < 0


def test_a_value_that_never_changes_stays_so() -> None:
    z = torch.cat([torch.randn(200, 2), torch.full((200, 1), 3.0)], 1)
    sampler = make(LatentSpec((3,)), steps=50)
    sampler.fit(z)
    torch.testing.assert_close(draw(sampler, 9)[:, 2], torch.full((9,), 3.0), atol=1e-3, rtol=0)


def shapes(sampler: FlowMatchingSampler) -> Sequence[tuple[str, torch.Size]]:
    return [(name, value.shape) for name, value in sampler.state_dict().items()]


def test_a_fitted_state_loads(fitted: FlowMatchingSampler) -> None:
    fresh = make(LatentSpec((2,), num_classes=2), conditional=True)
    assert shapes(fresh) == shapes(fitted)
    fresh.load_state_dict(fitted.state_dict())
    assert fresh.is_fitted
    assert draw(fresh, 5).equal(draw(fitted, 5))


def test_a_model_is_trained_with_it(tmp_path: Path) -> None:
    """Its loss and its log-likelihood stay those of its own prior; there is no ELBO of samples."""
    own = {"sampler": "flow_matching", "sampler_steps": 3, "width": 16, "conditional": True}
    run = vaezoo.train("vanilla", out=tmp_path / "run", **SMALL_JOB, **own)
    assert run.summary["elbo"] is None
    assert run.summary["notes"]["elbo"] == "its sampler has no density where the latents are"
    x = torch.rand(2, *run.data_spec.shape)
    assert run.model(x).prior.log_prob(torch.zeros(run.model.latent_shape)).isfinite()
    assert run.sample(3, label=1).isfinite().all()
    assert vaezoo.load_run(run.path, sampler="none").evaluate(metrics="elbo").elbo is not None
