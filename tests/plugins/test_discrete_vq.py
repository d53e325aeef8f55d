"""The vector quantizer: nearest codes, moving averages, resets of dead codes, evaluation."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from vaezoo_discrete.distributions import CodePosterior
from vaezoo_discrete.vq import VectorQuantizer

SIZE, WIDTH = 6, 3


def quantizer(**options: Any) -> VectorQuantizer:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"num_codes": SIZE, "code_dim": WIDTH, "dead_code_steps": None}
    return VectorQuantizer(**settings | options)


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
        monkeypatch.setattr("vaezoo_discrete.vq._MAX_DISTANCES", at_once)
        quantize, x = quantizer().eval(), features()
        indices = quantize(x).indices
        for n in range(5):
            for row in range(2):
                for column in range(4):
                    distances = [
                        math.dist(x[n, :, row, column].tolist(), code.tolist())
                        for code in quantize.codebook
                    ]
                    nearest = min(range(SIZE), key=distances.__getitem__)
                    assert indices[n, row, column] == nearest
        assert len(indices.unique()) > 2

    def test_embedding_and_codes_are_inverse(self) -> None:
        quantize = quantizer()
        codes = torch.randint(SIZE, (2, 3, 4, 5))
        z = quantize.indices_to_codes(codes)
        assert z.shape == (2, 3, WIDTH, 4, 5)
        assert z[1, 2, :, 3, 4].equal(quantize.codebook[codes[1, 2, 3, 4]])
        assert quantize.codes_to_indices(z).equal(codes)

    def test_far_from_the_origin(self) -> None:
        """Leaving |z|² out of the distance is no approximation."""
        quantize = quantizer(ema=False)
        with torch.no_grad():
            quantize.codebook.copy_(torch.eye(SIZE)[:, :WIDTH])
        x = as_features(torch.tensor([[100.0, 99.0, 0.0], [0.0, 0.4, 0.0], [0.0, 0.6, 0.0]]))
        assert quantize.codes_to_indices(x).flatten()[0] == 0
        assert quantize.codes_to_indices(x).flatten()[1] >= WIDTH  # the codes at 0
        assert quantize.codes_to_indices(x).flatten()[2] == 1

    def test_half_precision_does_not_blur_distances(self) -> None:
        """Two codes that are equal in bfloat16, under the autocast of a bf16 run."""
        quantize = quantizer(num_codes=2, code_dim=2, ema=False)
        with torch.no_grad():
            quantize.codebook.copy_(torch.tensor([[1.0, 8.0], [1.001, 8.0]]))
        x = as_features(torch.tensor([[0.9, 8.0], [1.1, 8.0]]))
        with torch.autocast("cpu", torch.bfloat16):
            assert quantize(x).indices.flatten().tolist() == [0, 1]
            assert quantize(x).quantized.dtype == torch.float32


class TestStraightThrough:
    def test_value_is_the_code_and_gradient_is_of_the_features(self) -> None:
        quantize, x = quantizer(ema=False), features().requires_grad_()
        z, indices, _ = quantize(x)
        assert torch.allclose(vectors(z), quantize.codebook[indices.flatten()], atol=1e-6)
        weight = torch.randn_like(z)
        gradient, codebook = torch.autograd.grad(
            (weight * z).sum(), [x, quantize.codebook], allow_unused=True
        )
        assert gradient.equal(weight)
        assert codebook is None  # it learns by its own term alone

    def test_several_samples_are_one_point(self) -> None:
        quantize = quantizer().eval()
        posterior = CodePosterior(quantize(features()), quantize)
        assert torch.allclose(posterior.rsample(), posterior.mean, atol=1e-6)
        z = posterior.rsample(torch.Size((3,)))
        assert z.shape == (3, 5, WIDTH, 2, 4)
        assert z[0].equal(z[2])

    def test_all_its_mass_is_at_its_codes(self) -> None:
        quantize = quantizer().eval()
        posterior = CodePosterior(quantize(features()), quantize)
        assert (posterior.log_prob(posterior.rsample(torch.Size((3,)))) == 0).all()
        other = posterior.indices.clone()
        other[2, 1, 3] = (other[2, 1, 3] + 1) % SIZE
        log_p = posterior.log_prob(quantize.indices_to_codes(other))
        assert log_p.tolist() == [0, 0, -math.inf, 0, 0]


class TestMovingAverages:
    def test_are_the_formula_by_hand(self) -> None:
        """Appendix A.1: N and m decay, and take in the share of this batch; e = m / N."""
        quantize = quantizer(decay=0.9)
        book = quantize.codebook.clone()
        counts, sums = [1.0] * SIZE, [code.tolist() for code in book]
        for step in range(4):
            x = features() + step
            codes = quantize(x).indices.flatten().tolist()
            for code in range(SIZE):
                own = [v.tolist() for v, c in zip(vectors(x), codes, strict=True) if c == code]
                counts[code] = 0.9 * counts[code] + 0.1 * len(own)
                for i in range(WIDTH):
                    total = sum(v[i] for v in own)
                    sums[code][i] = 0.9 * sums[code][i] + 0.1 * total
            expected = [[s / counts[k] for s in sums[k]] for k in range(SIZE)]
            assert torch.allclose(quantize.codebook, torch.tensor(expected), atol=1e-5)
            assert torch.allclose(quantize.counts, torch.tensor(counts), atol=1e-5)
        assert (quantize.codebook - book).abs().max() > 0.1

    def test_come_to_the_means_of_clusters(self) -> None:
        """On four far clusters, the codes are their means: the fixed point of k-means."""
        generator = torch.Generator().manual_seed(2)
        centres = torch.tensor([[9.0, 0], [-9, 0], [0, 9], [0, -9]])
        points = (centres[:, None] + torch.randn(4, 50, 2, generator=generator)).flatten(0, 1)
        quantize = quantizer(num_codes=4, code_dim=2, decay=0.8, dead_code_steps=5)
        for _ in range(150):
            quantize(as_features(points))
        means = points.view(4, 50, 2).mean(1)
        distances = torch.cdist(means, quantize.codebook)
        assert distances.min(1).values.max() < 1e-4
        assert len(distances.argmin(1).unique()) == 4

    def test_codes_without_use_keep_their_place(self) -> None:
        """Averages that fade to nothing are no number, and the codebook has none of that."""
        quantize = quantizer(decay=0.5)
        book = quantize.codebook.clone()
        for _ in range(300):
            quantize(as_features(book[:1]))
        assert torch.allclose(quantize.codebook, book, atol=1e-5)

    def test_evaluation_moves_nothing(self) -> None:
        quantize = quantizer(dead_code_steps=1).eval()
        before = {name: value.clone() for name, value in quantize.state_dict().items()}
        for _ in range(3):
            quantize(features())
        assert all(value.equal(before[name]) for name, value in quantize.state_dict().items())
        quantize.train()(features())
        assert not quantize.codebook.equal(before["codebook"])

    def test_gradients_do_not_know_of_them(self) -> None:
        """The codes moved during the forward pass; its gradient is of the codes that it used."""
        quantize, x = quantizer(), features().requires_grad_()
        z, _, losses = quantize(x)
        losses["commitment"].sum().backward()
        assert x.grad is not None
        assert torch.allclose(x.grad, 2 * (x - z).detach(), atol=1e-6)
        assert "codebook" not in losses


class TestRevival:
    def test_after_its_patience_and_not_before(self) -> None:
        quantize = quantizer(dead_code_steps=3, decay=0.99)
        near = as_features(quantize.codebook[:1].repeat(8, 1))
        quantize.unused_steps.zero_()
        book = quantize.codebook.clone()
        for step in range(1, 4):
            quantize(near)
            moved = (quantize.codebook - book).abs().amax(1) > 1e-3
            assert not moved[0]
            assert moved[1:].all() if step == 3 else not moved.any()
        # They start again at what the encoder gave, and count from there.
        assert torch.allclose(quantize.codebook, book[:1].expand(SIZE, -1), atol=1e-4)
        assert quantize.unused_steps.tolist() == [0] * SIZE

    @pytest.mark.parametrize("ema", [True, False])
    def test_brings_a_dead_code_back_into_use(self, ema: bool) -> None:
        quantize = quantizer(ema=ema, dead_code_steps=10)
        quantize.unused_steps.zero_()
        x = features(40)
        with torch.no_grad():
            quantize.codebook[0] = 1e4
            if ema:
                quantize.sums[0] = 1e4
        for _ in range(9):
            assert 0 not in quantize(x).indices
        quantize(x)
        for _ in range(3):  # and it stays
            assert 0 in quantize(x).indices
            assert quantize.codebook[0].abs().max() < 5

    def test_without_it_a_dead_code_stays_dead(self) -> None:
        quantize = quantizer(dead_code_steps=None)
        quantize.codebook[0] = quantize.sums[0] = 1e4
        for _ in range(50):
            assert 0 not in quantize(features(40)).indices

    def test_any_vector_of_the_batch_may_replace_a_code(self) -> None:
        quantize, given = quantizer(num_codes=64, dead_code_steps=1), torch.eye(3)[:, :WIDTH]
        quantize.unused_steps.zero_()
        quantize._reset_codes(given, torch.ones(64).bool())
        found = {tuple(code) for code in quantize.codebook.tolist()}
        assert found == {tuple(vector) for vector in given.tolist()}

    def test_first_batch_seeds_the_codebook(self) -> None:
        """An encoder far away from a fresh codebook would have all its vectors meet one code."""
        quantize = quantizer(num_codes=64, dead_code_steps=100)
        x = features(40) + 50.0
        quantize(x)
        assert len(quantize(x).indices.unique()) > 32

    def test_follows_torchs_generator(self) -> None:
        books = []
        for seed in (1, 1, 2):
            quantize = quantizer(num_codes=64, dead_code_steps=1)
            torch.manual_seed(seed)
            quantize(features())
            books.append(quantize.codebook)
        assert books[0].equal(books[1])
        assert not books[0].equal(books[2])


def test_gradient_codebook_is_a_parameter_and_averages_are_buffers() -> None:
    by_gradient, by_averages = quantizer(ema=False), quantizer()
    assert [name for name, _ in by_gradient.named_parameters()] == ["codebook"]
    assert list(by_averages.parameters()) == []
    assert {"codebook", "counts", "sums"} == set(by_averages.state_dict())
