"""Tests of DIP-VAE: the covariance of the aggregate posterior, and the penalty on it."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal
from torch.types import _size

from small_models import images, small_model
from vaezoo import BaseVAE, Batch, LossOutput, StepContext
from vaezoo.errors import OptionError
from vaezoo.models.distributions import BaseDistribution, diagonal_normal
from vaezoo_objectives.dip_vae import covariance_of
from vaezoo_objectives.options import DIPVAEOptions


def values(n: int = 40, latents: int = 3) -> Tensor:
    """Correlated latents with different means: an error in the centering shows."""
    generator = torch.Generator().manual_seed(0)
    turn = torch.tensor([[1.0, 0.8, 0.0], [0.0, 0.6, 0.2], [0.0, 0.0, 1.5]], dtype=torch.float64)
    raw = torch.randn(n, latents, generator=generator, dtype=torch.float64)
    return raw @ turn + torch.tensor([5.0, -2.0, 0.0], dtype=torch.float64)


def with_covariance(target: Tensor, n: int = 50) -> Tensor:
    """Values whose covariance, divided by n, is exactly the target."""
    raw = torch.randn(n, len(target), generator=torch.manual_seed(1), dtype=torch.float64)
    raw = raw - raw.mean(0)
    root = torch.linalg.cholesky(raw.T @ raw / n)
    return (
        torch.linalg.solve_triangular(root, raw.T, upper=False).T @ torch.linalg.cholesky(target).T
    )


model = partial(small_model, "dip_vae", latent_dim=2)


def run(vae: BaseVAE, n: int = 8) -> LossOutput:
    x = images(n)
    assert vae.loss is not None
    output: LossOutput = vae.loss(vae, Batch(x), StepContext(torch.tensor(0), 10, 100))
    return output


def give(vae: BaseVAE, posterior: Distribution) -> BaseVAE:
    """A model whose posterior is given."""

    def encode(x: Tensor, y: Tensor | None = None) -> Distribution:
        return posterior

    vae.encode = encode
    return vae


class TestCovariance:
    def test_is_torchs(self) -> None:
        assert torch.allclose(covariance_of(values()), torch.cov(values().T, correction=0))

    def test_is_that_of_a_loop(self) -> None:
        means = values()
        for i in range(3):
            for j in range(3):
                products = [
                    (row[i] - means[:, i].mean()) * (row[j] - means[:, j].mean()) for row in means
                ]
                expected = torch.stack(products).mean()
                assert torch.allclose(covariance_of(means)[i, j], expected, rtol=0, atol=1e-12)

    def test_does_not_grow_with_the_batch(self) -> None:
        """Repeated examples have the same covariance: it is divided by the batch size."""
        once = covariance_of(values())
        assert torch.allclose(covariance_of(values().repeat(8, 1)), once, rtol=0, atol=1e-12)

    def test_does_not_know_where_the_latents_are(self) -> None:
        moved = values() + torch.tensor([100.0, -7.0, 0.5])
        assert torch.allclose(covariance_of(moved), covariance_of(values()), rtol=0, atol=1e-9)

    def test_of_one_example_is_nothing(self) -> None:
        assert covariance_of(values(1)).equal(torch.zeros(3, 3).double())

    def test_is_in_full_precision_under_autocast(self) -> None:
        means = values().float()
        with torch.autocast("cpu", torch.bfloat16):
            assert covariance_of(means).equal(covariance_of(means))
            under = covariance_of(means)
        assert under.dtype == torch.float32
        assert under.equal(covariance_of(means))


class TestPenalty:
    target = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)

    def test_type_i_is_of_the_means(self) -> None:
        """Cov = [[2, ½], [½, 1]]: ½² twice off the diagonal, (2 - 1)² on it."""
        means = with_covariance(self.target)
        posterior = diagonal_normal(means, torch.full_like(means, 3.0))
        objective, terms = run(give(model(lambda_od=7.0, lambda_d=11.0), posterior), len(means))
        assert terms["covariance_off_diagonal"].item() == pytest.approx(0.5)
        assert terms["covariance_diagonal"].item() == pytest.approx(1.0)
        expected = -terms["elbo"].mean() + 7.0 * 0.5 + 11.0 * 1.0
        assert torch.allclose(objective, expected)

    def test_type_ii_adds_the_mean_variance(self) -> None:
        """Cov = [[2, ½], [½, 1]] + diag(0.3, 0.8): (1.3)² + (0.8)² on the diagonal."""
        means = with_covariance(self.target)
        variance = (
            torch.tensor([0.3, 0.8]).double() * torch.linspace(0.5, 1.5, 50).double()[:, None]
        )
        posterior = diagonal_normal(means, variance.sqrt())
        terms = run(give(model(dip_type="ii"), posterior), len(means)).terms
        assert terms["covariance_off_diagonal"].item() == pytest.approx(0.5)
        assert terms["covariance_diagonal"].item() == pytest.approx(1.3**2 + 0.8**2)

    def test_type_ii_is_the_covariance_of_the_latents(self) -> None:
        """Equal to the covariance of 400,000 samples of the aggregate posterior."""
        means = with_covariance(self.target)
        scale = 0.2 + torch.rand(50, 2, generator=torch.manual_seed(3), dtype=torch.float64)
        posterior = diagonal_normal(means, scale)
        torch.manual_seed(0)
        drawn = torch.cov(posterior.sample((8000,)).flatten(0, 1).T)
        terms = run(give(model(dip_type="ii"), posterior), len(means)).terms
        diagonal = (drawn.diagonal() - 1).square().sum()
        assert terms["covariance_diagonal"].item() == pytest.approx(float(diagonal), rel=0.02)
        off = 2 * drawn[0, 1].square()
        assert terms["covariance_off_diagonal"].item() == pytest.approx(float(off), rel=0.05)

    @pytest.mark.parametrize("kind", ["i", "ii"])
    def test_is_nothing_where_the_covariance_is_the_identity(self, kind: str) -> None:
        spread = 0.0 if kind == "i" else 0.4
        means = with_covariance((1 - spread) * torch.eye(2, dtype=torch.float64))
        posterior = diagonal_normal(means, torch.full_like(means, 0.4**0.5))
        terms = run(give(model(dip_type=kind), posterior), len(means)).terms
        assert terms["covariance_off_diagonal"].item() == pytest.approx(0.0, abs=1e-12)
        assert terms["covariance_diagonal"].item() == pytest.approx(0.0, abs=1e-12)

    def test_is_one_number_whatever_the_batch(self) -> None:
        """The loss does not grow with the batch: each example once, or eight times."""
        means = with_covariance(self.target, 8)
        scale = torch.full_like(means, 1e-6)
        once = run(give(model(), diagonal_normal(means, scale)), 8).terms
        often = diagonal_normal(means.repeat(8, 1), scale.repeat(8, 1))
        many = run(give(model(), often), 64).terms
        for name in ("covariance_off_diagonal", "covariance_diagonal"):
            assert torch.allclose(once[name], many[name], rtol=0, atol=1e-9)

    @pytest.mark.parametrize(("kind", "moves"), [("i", False), ("ii", True)])
    def test_only_type_ii_has_a_gradient_in_the_variances(self, kind: str, moves: bool) -> None:
        means = with_covariance(self.target).requires_grad_()
        scale = torch.full((50, 2), 0.5, dtype=torch.float64, requires_grad=True)
        terms = run(give(model(dip_type=kind), diagonal_normal(means, scale)), 50).terms
        terms["covariance_diagonal"].backward()
        assert means.grad is not None
        assert means.grad.abs().sum() > 0
        assert (scale.grad is not None and bool(scale.grad.abs().sum() > 0)) is moves

    @pytest.mark.parametrize("kind", ["i", "ii"])
    def test_a_batch_of_one_trains(self, kind: str) -> None:
        vae = model(dip_type=kind)
        objective, _ = run(vae, 1)
        objective.backward()
        assert objective.isfinite()
        assert all(p.grad.isfinite().all() for p in vae.parameters() if p.grad is not None)

    @pytest.mark.parametrize(
        ("options", "weight"),
        [({}, 100.0), ({"dip_type": "ii"}, 10.0), ({"lambda_d": 3.0}, 3.0), ({"lambda_d": 0}, 0.0)],
    )
    def test_weight_of_the_diagonal_is_the_papers(
        self, options: dict[str, object], weight: float
    ) -> None:
        assert DIPVAEOptions(**options).diagonal_weight() == weight


class Unknown(BaseDistribution):
    """Standard Gaussian latents that hide their moments, or the variance alone."""

    has_rsample = True

    def __init__(self, n: int, mean: Tensor | None = None) -> None:
        super().__init__((n,), (2,))
        self.known = mean

    @property
    def mean(self) -> Tensor:
        if self.known is None:
            raise NotImplementedError
        return self.known

    @property
    def mode(self) -> Tensor:
        return torch.zeros(*self.batch_shape, 2).double()

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        return torch.randn(*sample_shape, *self.batch_shape, 2).double()

    def log_prob(self, value: Tensor) -> Tensor:
        return -0.5 * value.square().sum(-1)


@pytest.mark.parametrize("dip_type", ["i", "ii"])
def test_a_posterior_without_moments_is_refused_in_a_line(dip_type: str) -> None:
    with pytest.raises(OptionError, match="Unknown has no closed form of it") as caught:
        run(give(model(dip_type=dip_type), Unknown(8)))
    assert f"--dip-type {dip_type} needs the posterior's mean" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_type_i_needs_the_mean_alone() -> None:
    some = values(8)[:, :2]
    terms = run(give(model(), Unknown(8, some))).terms
    variances = torch.cov(some.T, correction=0).diagonal()
    assert torch.allclose(terms["covariance_diagonal"], (variances - 1).square().sum())
    with pytest.raises(OptionError, match="mean and covariance"):
        run(give(model(dip_type="ii"), Unknown(8, some)))


def test_type_ii_uses_the_whole_covariance_of_a_posterior() -> None:
    """By the law of total covariance, of latents that are correlated in each posterior."""
    factor = torch.tensor([[1.0, 0.0], [0.8, 0.6]]).double()
    q = MultivariateNormal(values(8)[:, :2], scale_tril=factor, validate_args=False)
    terms = run(give(model(dip_type="ii"), q)).terms
    total = torch.cov(q.mean.T, correction=0) + factor @ factor.T
    assert torch.allclose(terms["covariance_off_diagonal"], 2 * total[0, 1].square())
