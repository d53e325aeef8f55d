"""The codebook: what is nearest, how it learns, what brings dead codes back, what holds still."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from vaezoo_discrete.options import VQOptions
from vaezoo_discrete.vq import VectorQuantiser

SIZE, WIDTH = 6, 3


def quantiser(**options: Any) -> VectorQuantiser:
    torch.manual_seed(0)
    settings = {"codes": SIZE, "code_dim": WIDTH, "revive_after": None} | options
    return VectorQuantiser(VQOptions(**settings))


def features(n: int = 5, rows: int = 2, columns: int = 4, width: int = WIDTH) -> Tensor:
    return torch.randn(n, width, rows, columns, generator=torch.Generator().manual_seed(1))


def vectors(grid: Tensor) -> Tensor:
    return grid.permute(0, 2, 3, 1).flatten(0, 2)


def as_features(points: Tensor) -> Tensor:
    """[n, width] points as n grids of one position."""
    return points[:, :, None, None]


class TestNearest:
    @pytest.mark.parametrize("at_once", [1, 7, 1 << 22])
    def test_is_nearest_of_all(self, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
        monkeypatch.setattr("vaezoo_discrete.vq._DISTANCES_AT_ONCE", at_once)
        quantise, x = quantiser().eval(), features()
        posterior = quantise(x)
        for n in range(5):
            for row in range(2):
                for column in range(4):
                    distances = [
                        math.dist(x[n, :, row, column].tolist(), code.tolist())
                        for code in quantise.codebook
                    ]
                    nearest = min(range(SIZE), key=distances.__getitem__)
                    assert posterior.codes[n, row, column] == nearest
        assert len(posterior.codes.unique()) > 2

    def test_embedding_and_codes_are_inverse(self) -> None:
        quantise = quantiser()
        codes = torch.randint(SIZE, (2, 3, 4, 5))
        z = quantise.embed(codes)
        assert z.shape == (2, 3, WIDTH, 4, 5)
        assert z[1, 2, :, 3, 4].equal(quantise.codebook[codes[1, 2, 3, 4]])
        assert quantise.codes_of(z).equal(codes)

    def test_far_from_the_origin(self) -> None:
        """Leaving |z|² out of the distance is no approximation."""
        quantise = quantiser(codebook="gradient")
        with torch.no_grad():
            quantise.codebook.copy_(torch.eye(SIZE)[:, :WIDTH])
        x = as_features(torch.tensor([[100.0, 99.0, 0.0], [0.0, 0.4, 0.0], [0.0, 0.6, 0.0]]))
        assert quantise.codes_of(x).flatten()[0] == 0
        assert quantise.codes_of(x).flatten()[1] >= WIDTH  # the codes at 0
        assert quantise.codes_of(x).flatten()[2] == 1

    def test_half_precision_does_not_blur_distances(self) -> None:
        """Two codes that bfloat16 cannot tell apart, under the autocast of a bf16 run."""
        quantise = quantiser(codes=2, code_dim=2, codebook="gradient")
        with torch.no_grad():
            quantise.codebook.copy_(torch.tensor([[1.0, 8.0], [1.001, 8.0]]))
        x = as_features(torch.tensor([[0.9, 8.0], [1.1, 8.0]]))
        with torch.autocast("cpu", torch.bfloat16):
            assert quantise(x).codes.flatten().tolist() == [0, 1]
            assert quantise(x).mean.dtype == torch.float32


class TestStraightThrough:
    def test_value_is_the_code_and_gradient_is_of_the_features(self) -> None:
        quantise, x = quantiser(codebook="gradient"), features().requires_grad_()
        posterior = quantise(x)
        z = posterior.rsample()
        assert torch.allclose(z, posterior.mean, atol=1e-6)
        assert vectors(posterior.mean).equal(quantise.codebook[posterior.codes.flatten()])
        weight = torch.randn_like(z)
        gradient, codebook = torch.autograd.grad(
            (weight * z).sum(), [x, quantise.codebook], allow_unused=True
        )
        assert gradient.equal(weight)
        assert codebook is None  # it learns by its own term alone

    def test_several_samples_are_one_point(self) -> None:
        posterior = quantiser()(features())
        z = posterior.rsample(torch.Size((3,)))
        assert z.shape == (3, 5, WIDTH, 2, 4)
        assert z[0].equal(z[2])

    def test_all_its_mass_is_at_its_codes(self) -> None:
        quantise = quantiser().eval()
        posterior = quantise(features())
        assert (posterior.log_prob(posterior.rsample(torch.Size((3,)))) == 0).all()
        other = posterior.codes.clone()
        other[2, 1, 3] = (other[2, 1, 3] + 1) % SIZE
        log_p = posterior.log_prob(quantise.embed(other))
        assert log_p.tolist() == [0, 0, -math.inf, 0, 0]


class TestMovingAverages:
    def test_are_the_formula_by_hand(self) -> None:
        """Appendix A.1: N and m decay, and take in the share of this batch; e = m / N."""
        quantise = quantiser(decay=0.9)
        book = quantise.codebook.clone()
        counts, sums = [1.0] * SIZE, [code.tolist() for code in book]
        for step in range(4):
            x = features() + step
            codes = quantise(x).codes.flatten().tolist()
            for code in range(SIZE):
                own = [v.tolist() for v, c in zip(vectors(x), codes, strict=True) if c == code]
                counts[code] = 0.9 * counts[code] + 0.1 * len(own)
                for i in range(WIDTH):
                    total = sum(v[i] for v in own)
                    sums[code][i] = 0.9 * sums[code][i] + 0.1 * total
            expected = [[s / counts[k] for s in sums[k]] for k in range(SIZE)]
            assert torch.allclose(quantise.codebook, torch.tensor(expected), atol=1e-5)
            assert torch.allclose(quantise.counts, torch.tensor(counts), atol=1e-5)
        assert (quantise.codebook - book).abs().max() > 0.1

    def test_come_to_the_means_of_clusters(self) -> None:
        """On four far clusters, the codes are their means: the fixed point of k-means."""
        generator = torch.Generator().manual_seed(2)
        centres = torch.tensor([[9.0, 0], [-9, 0], [0, 9], [0, -9]])
        points = (centres[:, None] + torch.randn(4, 50, 2, generator=generator)).flatten(0, 1)
        quantise = quantiser(codes=4, code_dim=2, decay=0.8, revive_after=5)
        for _ in range(150):
            quantise(as_features(points))
        means = points.view(4, 50, 2).mean(1)
        distances = torch.cdist(means, quantise.codebook)
        assert distances.min(1).values.max() < 1e-4
        assert len(distances.argmin(1).unique()) == 4

    def test_codes_without_use_keep_their_place(self) -> None:
        """Averages that fade to nothing are no number, and the codebook has none of that."""
        quantise = quantiser(decay=0.5)
        book = quantise.codebook.clone()
        for _ in range(300):
            quantise(as_features(book[:1]))
        assert torch.allclose(quantise.codebook, book, atol=1e-5)

    def test_evaluation_moves_nothing(self) -> None:
        quantise = quantiser(revive_after=1).eval()
        before = {name: value.clone() for name, value in quantise.state_dict().items()}
        for _ in range(3):
            quantise(features())
        assert all(value.equal(before[name]) for name, value in quantise.state_dict().items())
        quantise.train()(features())
        assert not quantise.codebook.equal(before["codebook"])

    def test_gradients_do_not_know_of_them(self) -> None:
        """The codes moved during the forward pass; its gradient is of the codes that it used."""
        quantise, x = quantiser(), features().requires_grad_()
        posterior = quantise(x)
        (posterior.features - posterior.mean).square().sum().backward()
        assert x.grad is not None
        assert torch.allclose(x.grad, 2 * (x - posterior.mean).detach())
        assert not posterior.mean.requires_grad


class TestRevival:
    def test_after_its_patience_and_not_before(self) -> None:
        quantise = quantiser(revive_after=3, decay=0.99)
        near = as_features(quantise.codebook[:1].repeat(8, 1))
        quantise.idle.zero_()
        book = quantise.codebook.clone()
        for step in range(1, 4):
            quantise(near)
            moved = (quantise.codebook - book).abs().amax(1) > 1e-3
            assert not moved[0]
            assert moved[1:].all() if step == 3 else not moved.any()
        # They start again at what the encoder gave, and count from there.
        assert torch.allclose(quantise.codebook, book[:1].expand(SIZE, -1), atol=1e-4)
        assert quantise.idle.tolist() == [0] * SIZE

    @pytest.mark.parametrize("codebook", ["ema", "gradient"])
    def test_brings_a_dead_code_back_into_use(self, codebook: str) -> None:
        quantise = quantiser(codebook=codebook, revive_after=10)
        quantise.idle.zero_()
        x = features(40)
        with torch.no_grad():
            quantise.codebook[0] = 1e4
            if codebook == "ema":
                quantise.sums[0] = 1e4
        for _ in range(9):
            assert 0 not in quantise(x).codes
        quantise(x)
        for _ in range(3):  # and it stays
            assert 0 in quantise(x).codes
            assert quantise.codebook[0].abs().max() < 5

    def test_without_it_a_dead_code_stays_dead(self) -> None:
        quantise = quantiser(revive_after=None)
        quantise.codebook[0] = quantise.sums[0] = 1e4
        for _ in range(50):
            assert 0 not in quantise(features(40)).codes

    def test_first_batch_seeds_the_codebook(self) -> None:
        """An encoder far away from a fresh codebook would have all its vectors meet one code."""
        quantise = quantiser(codes=64, revive_after=100)
        x = features(40) + 50.0
        quantise(x)
        assert len(quantise(x).codes.unique()) > 32

    def test_follows_torchs_generator(self) -> None:
        books = []
        for seed in (1, 1, 2):
            quantise = quantiser(codes=64, revive_after=1)
            torch.manual_seed(seed)
            quantise(features())
            books.append(quantise.codebook)
        assert books[0].equal(books[1])
        assert not books[0].equal(books[2])


def test_gradient_codebook_is_a_parameter_and_averages_are_buffers() -> None:
    by_gradient, by_averages = quantiser(codebook="gradient"), quantiser()
    assert [name for name, _ in by_gradient.named_parameters()] == ["codebook"]
    assert list(by_averages.parameters()) == []
    assert {"codebook", "counts", "sums"} == set(by_averages.state_dict())
