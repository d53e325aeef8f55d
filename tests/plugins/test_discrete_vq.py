"""The vector quantizer: nearest codes, moving averages, resets of dead codes, evaluation."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from vaezoo_discrete import vq
from vaezoo_discrete.distributions import CodePosterior
from vaezoo_discrete.quantizer import rotate
from vaezoo_discrete.vq import VectorQuantizer, nearest_codes

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


class TestRotation:
    def test_has_the_value_of_the_code(self) -> None:
        quantize = quantizer(estimator="rotation").eval()
        z, indices, _ = quantize(features())
        assert torch.allclose(vectors(z), quantize.codebook[indices.flatten()], atol=1e-6)

    def test_the_gradient_keeps_its_angle_to_the_code(self) -> None:
        """Fifty et al. 2024, section 4: the Jacobian is ‖q‖ / ‖e‖ times a rotation of e onto q."""
        e, q = torch.randn(50, 7), torch.randn(50, 7)
        weight = torch.randn(50, 7)
        x = e.clone().requires_grad_()
        (found,) = torch.autograd.grad((weight * rotate(x, q, 1)).sum(), x)
        scale = q.norm(dim=1) / e.norm(dim=1)
        assert torch.allclose(found.norm(dim=1), scale * weight.norm(dim=1), rtol=1e-4)
        angle, of_code = (
            torch.nn.functional.cosine_similarity(a, b) for a, b in ((found, e), (weight, q))
        )
        assert torch.allclose(angle, of_code, atol=1e-5)

    def test_the_jacobian_is_a_rotation_in_the_plane_of_both(self) -> None:
        e, q = torch.randn(4), torch.randn(4)
        jacobian = torch.autograd.functional.jacobian(lambda x: rotate(x[None], q[None], 1)[0], e)
        turn = jacobian / (q.norm() / e.norm())
        assert torch.allclose(turn @ turn.T, torch.eye(4), atol=1e-5)
        assert torch.linalg.det(turn).item() == pytest.approx(1, abs=1e-5)
        assert torch.allclose(jacobian @ e, q, atol=1e-5)
        # What is orthogonal to both stays as it is.
        normal = torch.linalg.svd(torch.stack([e, q])).Vh[2:]
        assert torch.allclose(normal @ turn.T, normal, atol=1e-5)

    def test_the_vector_zero_passes_straight_through(self) -> None:
        x = torch.zeros(1, 3, requires_grad=True)
        (found,) = torch.autograd.grad(rotate(x, torch.ones(1, 3), 1).sum(), x)
        assert found.equal(torch.ones(1, 3))

    def test_opposite_vectors_have_a_finite_gradient(self) -> None:
        x = torch.tensor([[1.0, 2.0, 0.0]], requires_grad=True)
        rotated = rotate(x, -2 * x.detach(), 1)
        (found,) = torch.autograd.grad(rotated.sum(), x)
        assert rotated.equal(-2 * x)
        assert found.norm().item() == pytest.approx(2 * math.sqrt(3), rel=1e-5)


class TestCosine:
    @pytest.mark.parametrize("ema", [True, False])
    def test_nearest_by_cosine_is_returned_as_a_unit_vector(self, ema: bool) -> None:
        """Another implementation searches by cosine and returns codes of any length."""
        quantize, x = quantizer(cosine=True, ema=ema), features()
        with torch.no_grad():
            quantize.codebook.mul_(torch.rand(SIZE, 1) * 5 + 0.5)
        z, indices, losses = quantize.eval()(x)
        cosines = torch.nn.functional.cosine_similarity(
            vectors(x)[:, None], quantize.codebook[None], dim=2
        )
        assert indices.flatten().equal(cosines.argmax(1))
        assert torch.allclose(z.norm(dim=1), torch.ones(()))
        distance = (2 - 2 * cosines.amax(1)).view(5, -1).sum(1)
        assert torch.allclose(losses["commitment"], distance, atol=1e-4)

    def test_moving_averages_stay_on_the_sphere(self) -> None:
        quantize, x = quantizer(cosine=True, decay=0.0), features()
        _, indices, _ = quantize(x)
        units = torch.nn.functional.normalize(vectors(x), dim=1)
        for code in indices.unique():
            mean = units[indices.flatten() == code].mean(0)
            assert torch.allclose(quantize.codebook[code], mean / mean.norm(), atol=1e-5)

    @pytest.mark.parametrize("kmeans_steps", [0, 2])
    def test_resets_and_starts_are_unit_vectors(self, kmeans_steps: int) -> None:
        quantize = quantizer(cosine=True, dead_code_steps=1, kmeans_steps=kmeans_steps)
        quantize(100 * features())
        assert torch.allclose(quantize.codebook.norm(dim=1), torch.ones(()))

    def test_a_gradient_passes_though_dead_codes_are_replaced(self) -> None:
        """The gradient of the used codes is that without replacement; the others have none."""
        gradients = []
        for steps in (None, 1):
            quantize = quantizer(cosine=True, ema=False, dead_code_steps=steps)
            before = quantize.codebook.detach().clone()
            _, indices, losses = quantize(100 * features(1, 1, 2))
            losses["codebook"].sum().backward()
            gradients.append(quantize.codebook.grad)
            used = torch.zeros(SIZE, dtype=torch.bool).index_fill_(0, indices.flatten(), True)
            assert (quantize.codebook == before)[~used].all() == (steps is None)
        torch.testing.assert_close(*gradients)
        assert not gradients[0][~used].any()
        assert gradients[0][used].any()


class TestKmeans:
    def clusters(self) -> Tensor:
        """Two hundred vectors around four points far apart."""
        points = 10 * torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [-1, -1, -1]])
        noise = torch.randn(200, WIDTH, generator=torch.Generator().manual_seed(3))
        return as_features(points.repeat(50, 1) + 0.1 * noise)

    @pytest.mark.parametrize("ema", [True, False])
    def test_means_of_the_first_batch_start_the_codebook(self, ema: bool) -> None:
        x, losses = self.clusters(), []
        for steps in (0, 20):
            quantize = quantizer(num_codes=40, kmeans_steps=steps, ema=ema)
            with torch.no_grad():
                losses.append(quantize(x).losses["commitment"].mean().item())
        assert losses[1] < 0.02 < losses[0]
        assert quantize.started

    def test_a_code_is_the_mean_of_its_vectors(self) -> None:
        """Lloyd's fixed point, with the draws that start it."""
        quantize, x = quantizer(num_codes=4, kmeans_steps=50, ema=False), features(30)
        quantize(x)
        nearest = nearest_codes(vectors(x), quantize.codebook)
        for code in range(4):
            mean = vectors(x)[nearest == code].mean(0)
            assert torch.allclose(quantize.codebook[code], mean, atol=1e-5)

    def test_it_runs_once_and_not_in_evaluation(self) -> None:
        quantize = quantizer(num_codes=4, kmeans_steps=3, ema=False).eval()
        before = quantize.codebook.clone()
        quantize(features())
        assert quantize.codebook.equal(before)
        quantize.train()(features())
        started = quantize.codebook.clone()
        assert not started.equal(before)
        quantize(3 * features())
        assert quantize.codebook.equal(started)
        again = quantizer(num_codes=4, kmeans_steps=3, ema=False)
        again.load_state_dict(quantize.state_dict())
        again(5 * features())  # a resumed run does not start anew
        assert again.codebook.equal(started)

    def test_no_vector_starts_two_codes(self) -> None:
        quantize = quantizer(num_codes=40, kmeans_steps=1)
        drawn = quantize._random_vectors(vectors(features()), distinct=True)
        assert len(drawn.unique(dim=0)) == 40

    def test_fewer_vectors_than_codes(self) -> None:
        quantize = quantizer(num_codes=64, kmeans_steps=3)
        quantize(features(1))
        assert quantize.codebook.isfinite().all()


class TestMemory:
    def test_the_search_in_parts_is_the_search(self, monkeypatch: pytest.MonkeyPatch) -> None:
        points, codes = torch.randn(100, 5), torch.randn(30, 5)
        expected = torch.cdist(points, codes).argmin(1)
        for limit in (1, 30, 1000, 1 << 22):
            monkeypatch.setattr(vq, "_MAX_DISTANCES", limit)
            assert nearest_codes(points, codes).equal(expected)

    def test_sums_are_those_of_one_hot_vectors(self) -> None:
        points, indices = torch.randn(100, 5), torch.randint(7, (100,))
        counts, sums = vq._totals(points, indices, 9)
        one_hot = torch.nn.functional.one_hot(indices, 9)
        assert counts.equal(one_hot.sum(0))
        torch.testing.assert_close(sums, one_hot.T.float() @ points)

    def test_sums_do_not_depend_on_threads(self) -> None:
        """Some of torch's sums by index add in another order each time, with several threads."""
        points, indices = torch.randn(8192, 64), torch.randint(256, (8192,))
        threads = torch.get_num_threads()
        _, expected = vq._totals(points, indices, 256)
        try:
            torch.set_num_threads(2)
            for _ in range(5):
                assert vq._totals(points, indices, 256)[1].equal(expected)
        finally:
            torch.set_num_threads(threads)
