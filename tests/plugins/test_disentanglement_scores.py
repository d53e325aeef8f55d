"""Scores of representations that were made so that the score is known, and why it is that.

The factors are a full grid, so they are exactly independent: the information of a latent on a
factor that it does not depend on is 0, not nearly 0.
"""

from __future__ import annotations

import itertools
import math
import statistics
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution

from vaezoo import BaseVAE, DataSpec, Options, Splits, TensorSplit
from vaezoo.data.loader import BatchLoader
from vaezoo.evaluation.evaluate import evaluate, select_metrics
from vaezoo.evaluation.metric import EvalContext, MetricUnavailable
from vaezoo.models.distributions import diagonal_normal
from vaezoo_disentanglement import metrics, scores

GRID = (4, 6, 8)
COPIES = 10


def grid() -> Tensor:
    """Every combination of factor values, each COPIES times over: [1920, 3]."""
    rows = list(itertools.product(*(range(n) for n in GRID))) * COPIES
    return torch.tensor(rows)


def standard(factors: Tensor) -> Tensor:
    """Each factor as a number of mean 0 and variance 1."""
    values = factors.double()
    return (values - values.mean(0)) / values.std(0)


def noise(count: int, latents: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, latents, generator=generator, dtype=torch.float64)


def perfect() -> Tensor:
    return standard(grid())


def permuted() -> Tensor:
    """Other places, signs, scales and offsets: none of it matters to any score."""
    return perfect()[:, [2, 0, 1]] * torch.tensor([-3.0, 0.5, 10.0]) + 1


def useless() -> Tensor:
    return noise(len(grid()), 3)


def split_over_two() -> Tensor:
    """The first factor in two latents, each of which determines it."""
    codes = perfect()
    return torch.cat([codes[:, :1], -2 * codes[:, :1], codes[:, 1:]], 1)


def rotated() -> tuple[Tensor, Tensor]:
    """Two factors of a square grid, turned by 45°: each latent is as much of one as of the other.

    Up to the sign, exchanging the factors exchanges nothing: each latent has the same
    information on both.
    """
    factors = torch.tensor(list(itertools.product(range(8), range(8))) * 30)
    codes = standard(factors)
    turned = torch.stack([codes[:, 0] + codes[:, 1], codes[:, 0] - codes[:, 1]], 1)
    # A little noise, so that no draw of examples has a variance of exactly nothing.
    return turned + 1e-3 * noise(len(codes), 2), factors


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def mig(codes: Tensor, factors: Tensor) -> float:
    return scores.mig(scores.mutual_information(codes, factors), scores.entropies(factors))


def modularity(codes: Tensor, factors: Tensor) -> float:
    return scores.modularity(scores.mutual_information(codes, factors))


class TestMutualInformation:
    def test_of_a_copy_it_is_the_entropy(self) -> None:
        information = scores.mutual_information(perfect(), grid())
        expected = torch.diag(torch.tensor([math.log(n) for n in GRID], dtype=torch.float64))
        assert torch.allclose(information, expected, atol=1e-10)

    def test_of_noise_it_is_the_known_bias(self) -> None:
        """(cells − 1)(values − 1) / 2n (Miller 1955), to the accuracy of that expansion."""
        factors = torch.randint(10, (20_000, 1), generator=generator())
        codes = torch.rand(20_000, 40, generator=generator())
        information = scores.mutual_information(codes, factors)
        assert float(information.mean()) == pytest.approx(19 * 9 / (2 * 20_000), rel=0.1)

    def test_entropies(self) -> None:
        expected = [math.log(n) for n in GRID]
        assert scores.entropies(grid()).tolist() == pytest.approx(expected)

    def test_a_latent_that_does_not_move_tells_nothing(self) -> None:
        information = scores.mutual_information(torch.ones(len(grid()), 1), grid())
        assert information.tolist() == [[0.0, 0.0, 0.0]]


class TestMig:
    @pytest.mark.parametrize("codes", [perfect(), permuted()], ids=["perfect", "permuted"])
    def test_perfect(self, codes: Tensor) -> None:
        assert mig(codes, grid()) == pytest.approx(1.0)

    def test_rotated(self) -> None:
        """Both latents tell alike of both factors: no lead."""
        codes, factors = rotated()
        information = scores.mutual_information(codes, factors)
        assert float(information.min()) > 0.3
        assert mig(codes, factors) == pytest.approx(0.0, abs=0.02)

    def test_useless(self) -> None:
        assert mig(useless(), grid()) == pytest.approx(0.0, abs=0.02)

    def test_a_factor_split_over_two(self) -> None:
        """Its two latents tie, so it has no lead; the other two factors have all of theirs."""
        assert mig(split_over_two(), grid()) == pytest.approx(2 / 3)

    def test_more_values_than_cells(self) -> None:
        """40 values in 20 cells: the latent has log 20 of the factor's log 40."""
        factors = torch.tensor(list(itertools.product(range(40), range(2))) * 5)
        expected = (math.log(20) / math.log(40) + 1) / 2
        assert mig(standard(factors), factors) == pytest.approx(expected)


each_perfect = pytest.mark.parametrize(
    "codes",
    [perfect(), permuted(), split_over_two()],
    ids=["perfect", "permuted", "split over two"],
)


class TestModularity:
    @each_perfect
    def test_perfect(self, codes: Tensor) -> None:
        """A factor in two latents is no lack of modularity: each still has one factor."""
        assert modularity(codes, grid()) == pytest.approx(1.0)

    def test_rotated(self) -> None:
        """Both factors alike, of two: the other one's square is the whole of the template."""
        assert modularity(*rotated()) == pytest.approx(0.0, abs=0.02)

    def test_one_latent_of_two_factors_of_three(self) -> None:
        """1 − (x / log 4)² / 2 from the definition, with x its information on the second factor."""
        factors = grid()
        codes = standard(factors)[:, :1] + 3 * standard(factors)[:, 1:2]
        first, second, third = scores.mutual_information(codes, factors)[0].tolist()
        best, other = max(first, second), min(first, second)
        assert third == pytest.approx(0.0, abs=1e-10)
        assert 0.1 < other < best
        assert modularity(codes, factors) == pytest.approx(1 - (other / best) ** 2 / 2)


class TestSap:
    @pytest.mark.parametrize("codes", [perfect(), permuted()], ids=["perfect", "permuted"])
    def test_perfect(self, codes: Tensor) -> None:
        """The best latent is always right; the second guesses, one value in so many."""
        pytest.importorskip("sklearn")
        expected = sum(1 - 1 / n for n in GRID) / len(GRID)
        found = scores.sap(codes, grid(), generator())
        assert found == pytest.approx(expected, abs=0.06)

    def test_rotated_useless_split(self) -> None:
        pytest.importorskip("sklearn")
        codes, factors = rotated()
        assert scores.sap(codes, factors, generator()) == pytest.approx(0.0, abs=0.05)
        assert scores.sap(useless(), grid(), generator()) == pytest.approx(0.0, abs=0.05)
        # The split factor has no lead; the others have theirs.
        expected = ((1 - 1 / 6) + (1 - 1 / 8)) / 3
        found = scores.sap(split_over_two(), grid(), generator())
        assert found == pytest.approx(expected, abs=0.06)

    def test_a_rare_value_counts_as_much_as_a_common_one(self) -> None:
        """Of nine in ten with one value a guess is right nine times: by values, one time in two."""
        pytest.importorskip("sklearn")
        factors = torch.zeros(4000, 1, dtype=torch.int64)
        factors[::10] = 1
        codes = torch.cat([factors.double(), noise(4000, 1)], 1)
        assert scores.sap(codes, factors, generator()) == pytest.approx(0.5, abs=0.06)


class TestFactorVaeScore:
    @each_perfect
    def test_perfect(self, codes: Tensor) -> None:
        """The latent of the fixed factor does not vary at all, and belongs to that factor alone."""
        assert scores.factor_vae_score(codes, grid(), generator()) == 1.0

    def test_rotated(self) -> None:
        """Fix either factor, and both latents lose half of their variance: a coin decides."""
        found = scores.factor_vae_score(*rotated(), generator())
        assert found == pytest.approx(0.5, abs=0.08)

    def test_useless(self) -> None:
        """Which latent varies least has nothing to do with the factor: one guess in three."""
        found = scores.factor_vae_score(useless(), grid(), generator())
        assert found == pytest.approx(1 / 3, abs=0.06)

    def test_a_latent_of_two_factors_serves_one_of_them(self) -> None:
        """Two factors that only one latent knows of: right about one, and about the third."""
        codes = perfect()
        both = codes[:, :1] + codes[:, 1:2] + 1e-3 * noise(len(codes), 1)
        found = scores.factor_vae_score(torch.cat([both, codes[:, 2:]], 1), grid(), generator())
        assert found == pytest.approx(2 / 3, abs=0.06)

    def test_scale_does_not_matter(self) -> None:
        codes = useless()
        scaled = codes * torch.tensor([1e-3, 1.0, 1e3])
        first = scores.factor_vae_score(codes, grid(), generator())
        assert scores.factor_vae_score(scaled, grid(), generator()) == first


class TestDci:
    def test_importances_of_known_score(self) -> None:
        one_each = torch.eye(3)
        assert scores.disentanglement(one_each) == pytest.approx(1.0)
        assert scores.completeness(one_each) == pytest.approx(1.0)
        alike = torch.ones(4, 3)
        assert scores.disentanglement(alike) == pytest.approx(0.0, abs=1e-6)
        assert scores.completeness(alike) == pytest.approx(0.0, abs=1e-6)
        # One factor in two latents: each latent has one factor; the factor has two of four.
        split = torch.tensor([[0.5, 0, 0], [0.5, 0, 0], [0, 1, 0], [0, 0, 1]])
        assert scores.disentanglement(split) == pytest.approx(1.0)
        expected = (1 - math.log(2) / math.log(4) + 1 + 1) / 3
        assert scores.completeness(split) == pytest.approx(expected)
        # A latent that is of no importance changes nothing but the number of latents.
        idle = torch.cat([one_each, torch.zeros(1, 3)])
        assert scores.disentanglement(idle) == pytest.approx(1.0)

    def test_a_latent_weighs_by_its_importance(self) -> None:
        """0.9 of all importance is of a latent with one factor, 0.1 of one with both alike."""
        importance = torch.tensor([[0.9, 0.0], [0.05, 0.05]])
        assert scores.disentanglement(importance) == pytest.approx(0.9)

    @pytest.mark.parametrize("codes", [perfect(), permuted()], ids=["perfect", "permuted"])
    def test_perfect(self, codes: Tensor) -> None:
        pytest.importorskip("sklearn")
        found = scores.dci(codes, grid(), generator())
        assert found[0] > 0.98
        assert found[1] > 0.98
        assert found[2] > 0.99

    def test_rotated_is_informative_and_not_disentangled(self) -> None:
        pytest.importorskip("sklearn")
        disentangled, complete, informative = scores.dci(*rotated(), generator())
        assert disentangled == pytest.approx(0.0, abs=0.02)
        assert complete == pytest.approx(0.0, abs=0.02)
        assert informative > 0.95

    def test_useless(self) -> None:
        pytest.importorskip("sklearn")
        disentangled, complete, informative = scores.dci(useless(), grid(), generator())
        assert disentangled < 0.05
        assert complete < 0.05
        assert informative == pytest.approx(sum(1 / n for n in GRID) / 3, abs=0.05)


class _Known(TensorSplit):
    def factors(self, index: Tensor) -> Tensor:
        return grid()[index]


class _Copy(BaseVAE):
    """Its latents are the data."""

    def __init__(self) -> None:
        super().__init__(Options(), DataSpec(shape=(3,), domain="real"))
        self.latent_shape = (3,)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return diagonal_normal(x, torch.full_like(x, 0.1))

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        return diagonal_normal(z, torch.ones(()))


@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_a_score_is_the_mean_over_draws_of_half_of_the_examples(
    monkeypatch: pytest.MonkeyPatch, repeats: int
) -> None:
    drawn: list[Tensor] = []

    def mig(information: Tensor, entropies: Tensor) -> float:
        drawn.append(entropies)
        return float(len(drawn))

    monkeypatch.setattr(scores, "mig", mig)
    split = _Known(perfect().float())
    splits = Splits(
        spec=DataSpec(shape=(3,), domain="real", num_examples=len(split)),
        train=split,
        validation=split,
        test=split,
        description="a grid",
        factor_names=("a", "b", "c"),
        fingerprint="grid",
    )
    batches = BatchLoader(split, batch_size=500, device=torch.device("cpu"))
    where = EvalContext(
        _Copy(), frozenset(("elbo",)), batches, splits=splits, loaded=split, repeats=repeats
    )
    number = evaluate(where, select_metrics(["mig"])).metrics["mig"]
    assert number.value == pytest.approx(statistics.fmean(range(1, repeats + 1)))
    if repeats == 1:
        assert number.uncertainty is None
    else:
        assert number.uncertainty == pytest.approx(statistics.stdev(range(1, repeats + 1)))
    assert "960 examples" in number.comparable
    assert number.examples == 960
    assert len({tuple(entropies.tolist()) for entropies in drawn}) == repeats


@pytest.mark.parametrize("installed", [True, False])
def test_forests_need_scikit_learn(monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    monkeypatch.setattr(metrics, "find_spec", lambda name: object() if installed else None)
    if installed:
        metrics._require_sklearn()
    else:
        with pytest.raises(MetricUnavailable, match="scikit-learn"):
            metrics._require_sklearn()


def test_seeds_of_forests_are_spread_over_31_bits() -> None:
    generator = torch.Generator().manual_seed(0)
    seeds = [scores._seed(generator) for _ in range(200)]
    assert len(set(seeds)) == 200
    assert 0 <= min(seeds) < 2**27 < 2**30 < max(seeds) < 2**31


def test_a_factor_with_one_value_is_left_out() -> None:
    factors = torch.tensor([[0, 5, 7], [0, 9, 7], [0, 5, 7]])
    assert scores.varying(factors).tolist() == [[0], [1], [0]]


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Modules of disentanglement_lib, whose published numbers are those of Locatello et al. (2019).

    The library that configures it has changed its interface since; nothing here is configured.
    """
    gin: Any = ModuleType("gin")
    gin.REQUIRED, gin.tf = None, ModuleType("gin.tf")
    gin.configurable = lambda *args, **kwargs: lambda function: function
    monkeypatch.setitem(sys.modules, "gin", gin)
    monkeypatch.setitem(sys.modules, "gin.tf", gin.tf)
    return lambda name: pytest.importorskip(f"disentanglement_lib.evaluation.metrics.{name}")


class _GridData:
    """What disentanglement_lib asks of data, where an example is the row of its factors."""

    num_factors = len(GRID)
    factor_sizes = GRID

    def sample_factors(self, n: int, random: Any) -> Any:
        return np.stack([random.randint(size, size=n) for size in GRID], 1)

    def sample_observations_from_factors(self, factors: Any, random: Any) -> Any:
        return factors

    def sample_observations(self, n: int, random: Any) -> Any:
        return self.sample_factors(n, random)


class TestAgainstDisentanglementLib:
    def test_mig_and_modularity(self, library: Callable[[str], Any]) -> None:
        utils, theirs = library("utils"), library("modularity_explicitness")
        factors = grid()
        codes = perfect() @ torch.linalg.qr(noise(3, 3)).Q + 0.3 * noise(len(factors), 3)
        cells = np.stack([np.histogram(c, scores.BINS)[1][:-1] for c in codes.T.numpy()])
        cells = np.stack([np.digitize(c, e) for c, e in zip(codes.T.numpy(), cells, strict=True)])
        expected = utils.discrete_mutual_info(cells, factors.T.numpy())
        ours = scores.mutual_information(codes, factors)
        assert torch.allclose(ours, torch.from_numpy(expected), atol=1e-9)
        assert scores.modularity(ours) == pytest.approx(theirs.modularity(expected), abs=1e-9)
        entropy = utils.discrete_entropy(factors.T.numpy())
        assert scores.entropies(factors).tolist() == pytest.approx(entropy.tolist())
        ordered = np.sort(expected, axis=0)[::-1]
        gap = np.mean((ordered[0] - ordered[1]) / entropy)  # as their mig.py has it
        assert scores.mig(ours, scores.entropies(factors)) == pytest.approx(gap)

    def test_dci(self, library: Callable[[str], Any]) -> None:
        theirs = library("dci")
        importance = torch.rand(5, 3, generator=generator(), dtype=torch.float64)
        expected = theirs.disentanglement(importance.numpy())
        assert scores.disentanglement(importance) == pytest.approx(expected, abs=1e-6)
        expected = theirs.completeness(importance.numpy())
        assert scores.completeness(importance) == pytest.approx(expected, abs=1e-6)

    def test_factor_vae_score(self, library: Callable[[str], Any]) -> None:
        """The same representation, neither good nor bad: the same score but for the draws."""
        theirs = library("factor_vae")
        mean, std = grid().double().mean(0).numpy(), grid().double().std(0).numpy()

        def represent(factors: Any) -> Any:
            a, b, c = ((factors - mean) / std).T
            return np.stack([a * b + c, a + b * c, np.sin(3 * c) + 0.3 * a], 1)

        expected = theirs.compute_factor_vae(
            _GridData(),
            represent,
            np.random.RandomState(0),
            batch_size=64,
            num_train=800,
            num_eval=800,
            num_variance_estimate=20_000,
        )["eval_accuracy"]
        codes = torch.from_numpy(represent(grid().numpy()))
        assert 0.4 < expected < 0.98
        found = scores.factor_vae_score(codes, grid(), generator())
        assert found == pytest.approx(expected, abs=0.06)
