"""Distances of feature sets against closed forms, and torchmetrics where it is installed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vaezoo_fidelity import distances as fidelity


def noise(n: int, d: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64)


def with_moments(mean: Tensor, covariance: Tensor, n: int = 400, seed: int = 0) -> Tensor:
    """Points whose sample mean and covariance are these, exactly."""
    x = noise(n, len(mean), seed)
    x = x - x.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(x.T.cov()), x.T, upper=False)
    return (torch.linalg.cholesky(covariance) @ white).T + mean


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class TestFrechetDistance:
    def test_of_a_set_with_itself(self) -> None:
        x = noise(300, 5)
        assert fidelity.frechet_distance(x, x) == pytest.approx(0.0, abs=1e-9)

    def test_diagonal(self) -> None:
        """|Δμ|² + Σ (σ₁ − σ₂)²."""
        a = with_moments(
            torch.tensor([0.0, 1.0]).double(), torch.tensor([4.0, 1.0]).double().diag()
        )
        b = with_moments(
            torch.tensor([3.0, 1.0]).double(), torch.tensor([1.0, 9.0]).double().diag(), seed=1
        )
        assert fidelity.frechet_distance(a, b) == pytest.approx(9 + 1 + 4)

    def test_covariances_that_do_not_commute(self) -> None:
        """In two dimensions tr(M^½) = sqrt(tr M + 2 sqrt(det M)), for M = Σ₁ Σ₂."""
        first = torch.tensor([[2.0, 0.9], [0.9, 1.0]]).double()
        second = torch.tensor([[1.0, -0.4], [-0.4, 3.0]]).double()
        zero = torch.zeros(2).double()
        a, b = with_moments(zero, first), with_moments(zero, second, seed=1)
        product = first @ second
        root = (product.trace() + 2 * product.det().sqrt()).sqrt()
        expected = first.trace() + second.trace() - 2 * root
        assert fidelity.frechet_distance(a, b) == pytest.approx(float(expected))

    def test_fewer_examples_than_features(self) -> None:
        """The covariance has no inverse and no Cholesky root: the number is there all the same."""
        x = noise(10, 50)
        assert fidelity.frechet_distance(x, x) == pytest.approx(0.0, abs=1e-5)
        assert fidelity.frechet_distance(x, x + 1) == pytest.approx(50.0)

    def test_one_feature(self) -> None:
        x = noise(50, 1)
        assert fidelity.frechet_distance(x, 3 * x) == pytest.approx(
            float(4 * x.var() + 4 * x.mean().square())
        )

    def test_against_torchmetrics(self) -> None:
        fid = pytest.importorskip("torchmetrics.image.fid")
        a, b = noise(500, 8), noise(400, 8, seed=1) @ noise(8, 8, seed=2) + 0.5
        theirs = fid.FrechetInceptionDistance(feature=Same(8)).set_dtype(torch.float64)
        theirs.update(a, real=True)
        theirs.update(b, real=False)
        assert fidelity.frechet_distance(a, b) == pytest.approx(float(theirs.compute()), rel=1e-6)


class TestKernelDistance:
    def test_of_one_distribution_it_is_around_nothing(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fidelity, "SUBSETS", 20)
        a, b = noise(4000, 4), noise(4000, 4, seed=1)
        value, spread = fidelity.kernel_distance(a, b, generator())
        assert abs(value) < spread
        assert spread < 0.1

    def test_closed_form(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """(xy + 1)³ = 1 + 3 xy + 3 x²y² + x³y³: for N(0, 1) and N(1, 1) the squared differences
        of moments, 3·1² + 3·1² + 4²."""
        monkeypatch.setattr(fidelity, "SUBSETS", 20)
        a, b = noise(20_000, 1), noise(20_000, 1, seed=1) + 1
        value, _ = fidelity.kernel_distance(a, b, generator())
        assert value == pytest.approx(22.0, rel=0.05)

    def test_it_is_not_biased(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Subsets of 10: with its diagonals it would be off by 2 (E k(x, x) − E k(x, y)) / 10."""
        monkeypatch.setattr(fidelity, "SUBSETS", 4)
        found = []
        for seed in range(200):
            a, b = noise(20, 1, 2 * seed), noise(20, 1, 2 * seed + 1)
            found.append(fidelity.kernel_distance(a, b, torch.Generator().manual_seed(seed))[0])
        values = torch.tensor(found)
        error = float(values.std()) / 200**0.5
        assert abs(float(values.mean())) < 4 * error
        # E k(x, x) = 1 + 3 + 9 + 15 and E k(x, y) = 1 + 3: what it would be off by, it would show.
        assert 4 * error < 2 * (28 - 4) / 10

    def test_against_torchmetrics(self) -> None:
        kid = pytest.importorskip("torchmetrics.image.kid")
        a, b = noise(600, 8), 1.3 * noise(600, 8, seed=1) + 0.2
        theirs = kid.KernelInceptionDistance(feature=Same(8), subsets=1, subset_size=600)
        theirs = theirs.set_dtype(torch.float64)
        theirs.update(a, real=True)
        theirs.update(b, real=False)
        assert fidelity._mmd(a, b) == pytest.approx(float(theirs.compute()[0]), rel=1e-4)


class TestPrecisionAndRecall:
    def test_of_a_set_with_itself(self) -> None:
        x = noise(200, 3)
        assert fidelity.precision_and_recall(x, x) == (1.0, 1.0)

    def test_far_apart(self) -> None:
        assert fidelity.precision_and_recall(noise(200, 3), noise(200, 3) + 100) == (0.0, 0.0)

    def test_half_of_it(self) -> None:
        """What is new covers one half of what is real: all of it precise, half of it recalled."""
        real = torch.linspace(0, 2, 2001).double()[:, None]
        new = torch.linspace(0, 1, 1501).double()[:, None]
        precision, recall = fidelity.precision_and_recall(real, new)
        assert precision == 1.0
        assert recall == pytest.approx(0.5, abs=0.01)

    def test_half_of_it_is_off(self) -> None:
        real = torch.linspace(0, 1, 1001).double()[:, None]
        new = torch.cat([real, real + 50])
        precision, recall = fidelity.precision_and_recall(real, new)
        assert precision == pytest.approx(0.5, abs=0.01)
        assert recall == 1.0

    def test_reach_is_to_the_third_neighbour(self) -> None:
        """Real points 1 apart: the outermost one reaches 3 beyond, and no farther."""
        real = torch.arange(10.0).double()[:, None]
        new = torch.tensor([[11.9], [12.1], [-2.9], [-3.1]]).double()
        assert fidelity.precision_and_recall(real, torch.cat([new, new]))[0] == 0.5

    def test_chunks_do_not_matter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        a, b = noise(100, 2), noise(90, 2, seed=1) + 0.5
        whole = fidelity.precision_and_recall(a, b)
        monkeypatch.setattr(fidelity, "_ROWS", 7)
        assert fidelity.precision_and_recall(a, b) == whole
        assert 0 < whole[0] < 1


class Same(nn.Module):
    """Features are what is given."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.num_features = features

    def forward(self, x: Tensor) -> Tensor:
        return x
