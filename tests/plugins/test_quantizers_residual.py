"""Residual and product quantization: by hand, dropout, shared codebooks, learning."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from vaezoo_discrete.vq import VectorQuantizer
from vaezoo_quantizers.product import ProductQuantizer
from vaezoo_quantizers.residual import ResidualQuantizer

WIDTH = 3


def level(**options: object) -> VectorQuantizer:
    settings: dict[str, object] = {"dead_code_steps": None, "ema": False}
    return VectorQuantizer(5, WIDTH, **settings | options)  # type: ignore[arg-type]


def features(n: int = 6) -> Tensor:
    made = torch.randn(n, WIDTH, 2, 2, generator=torch.Generator().manual_seed(1))
    return made.requires_grad_()


def residual(count: int = 3, **options: float) -> ResidualQuantizer:
    torch.manual_seed(0)
    return ResidualQuantizer([level() for _ in range(count)], **options)


class TestResidual:
    def test_each_level_quantizes_what_the_others_left(self) -> None:
        quantizer, x = residual(), features()
        quantized, indices, losses = quantizer(x)
        commitment = torch.zeros(6)
        for b, row, column in torch.cartesian_prod(
            torch.arange(6), torch.arange(2), torch.arange(2)
        ).tolist():
            left, total = x[b, :, row, column].detach(), torch.zeros(WIDTH)
            for i, codes in enumerate(level.codebook.detach() for level in quantizer.levels):
                index = (codes - left).square().sum(1).argmin()
                assert indices[b, i, row, column] == index
                left, total = left - codes[index], total + codes[index]
                commitment[b] += left.square().sum()
            assert torch.allclose(quantized[b, :, row, column], total, atol=1e-5)
        assert torch.allclose(losses["commitment"], commitment, rtol=1e-4)
        assert torch.allclose(losses["codebook"], commitment, rtol=1e-4)

    def test_more_levels_come_nearer(self) -> None:
        """With k-means codebooks each level takes away a part of what is left."""
        torch.manual_seed(0)
        levels = [
            VectorQuantizer(16, WIDTH, kmeans_steps=10, dead_code_steps=None) for _ in range(4)
        ]
        x = torch.randn(100, WIDTH, 2, 2)
        quantizer = ResidualQuantizer(levels)
        quantizer(x)
        codes = quantizer.indices_to_codes(quantizer.eval()(x).indices)
        errors = [
            (x - quantizer.codes_to_features(codes[:, : n * WIDTH])).square().sum().item()
            for n in range(5)
        ]
        assert all(after < 0.7 * before for before, after in itertools.pairwise(errors))

    def test_a_prefix_of_the_indices_has_codes_too(self) -> None:
        quantizer, x = residual(), features()
        indices = quantizer(x).indices
        coarse = quantizer.codes_to_features(quantizer.indices_to_codes(indices[:, :1]))
        first = quantizer.levels[0].indices_to_codes(indices[:, 0])
        assert coarse.equal(first)

    def test_dropout_keeps_a_prefix_of_each_example(self) -> None:
        quantizer, x = residual(quantizer_dropout=1.0), features(300)
        torch.manual_seed(3)
        quantized, indices, losses = quantizer(x)
        codes = quantizer.indices_to_codes(indices).detach().unflatten(1, (3, WIDTH))
        sums = codes.cumsum(1)  # [batch, levels, width, 2, 2]
        distances = (sums - quantized.detach()[:, None]).abs().amax((2, 3, 4))
        assert (distances.min(1).values < 1e-5).all()
        used = distances.argmin(1) + 1
        counts = torch.bincount(used, minlength=4)[1:]
        assert (counts > 60).all()  # each number of codebooks is as likely as the others
        left = x.detach()[:, None] - sums
        each = left.square().sum((2, 3, 4))
        kept = torch.arange(3) < used[:, None]
        assert torch.allclose(losses["commitment"], (each * kept).sum(1), rtol=1e-4)
        whole = residual()(x)
        assert indices.equal(whole.indices)

    @pytest.mark.parametrize("rate", [0.0, 0.3])
    def test_dropout_is_of_a_share_of_the_examples(self, rate: float) -> None:
        quantizer, x = residual(quantizer_dropout=rate), features(2000)
        different = (quantizer(x).quantized - residual()(x).quantized).abs().amax((1, 2, 3)) > 1e-4
        assert different.float().mean().item() == pytest.approx(rate * 2 / 3, abs=0.03)
        quantizer.eval()
        assert quantizer(x).quantized.equal(residual().eval()(x).quantized)

    def test_a_shared_codebook_is_one_parameter_and_learns_from_all_levels(self) -> None:
        torch.manual_seed(0)
        shared = ResidualQuantizer([level(ema=True, decay=0.0)], 3)
        book, x = shared.level(0).codebook.clone(), features()
        assert len(shared.state_dict()) == len(shared.level(0).state_dict())
        _, indices, _ = shared(x)
        left, vectors = x.detach(), []
        for i in range(3):
            vectors.append(left.movedim(1, -1).flatten(0, 2))
            left = left - book[indices[:, i]].movedim(-1, 1)
        chosen = indices.movedim(1, 0).flatten()
        for code in chosen.unique():
            mean = torch.cat(vectors)[chosen == code].mean(0)
            assert torch.allclose(shared.level(0).codebook[code], mean, atol=1e-5)

    def test_the_codebook_term_trains_each_level_by_itself(self) -> None:
        quantizer, x = residual(), features()
        losses = quantizer(x).losses
        books = [level.codebook for level in quantizer.levels]
        found = torch.autograd.grad(losses["codebook"].sum(), books, retain_graph=True)
        left = x.detach()
        for book, gradient, indices in zip(
            books, found, quantizer(x).indices.unbind(1), strict=True
        ):
            vectors, flat = left.movedim(1, -1).flatten(0, 2), indices.flatten()
            expected = torch.zeros_like(book).index_add_(0, flat, 2 * (book[flat] - vectors))
            assert torch.allclose(gradient, expected.detach(), atol=1e-4)
            left = left - book.detach()[indices].movedim(-1, 1)
        (of_x,) = torch.autograd.grad(losses["codebook"].sum(), x, allow_unused=True)
        assert of_x is None

    @pytest.mark.parametrize("count", [2, 4])
    def test_levels_and_codebooks_must_agree(self, count: int) -> None:
        with pytest.raises(ValueError, match=f"{count} levels for 3 codebooks"):
            ResidualQuantizer([level() for _ in range(count)], 3)

    def test_cosine_levels_are_refused(self) -> None:
        with pytest.raises(ValueError, match="residuals are no unit vectors"):
            ResidualQuantizer([level(cosine=True)], 3)


class TestProduct:
    def test_each_group_of_channels_has_its_codebook(self) -> None:
        torch.manual_seed(0)
        parts = [level() for _ in range(2)]
        x = torch.randn(4, 2 * WIDTH, 2, 2)
        quantized, indices, losses = ProductQuantizer(parts)(x)
        for i, part in enumerate(parts):
            alone = part(x[:, i * WIDTH : (i + 1) * WIDTH])
            assert quantized[:, i * WIDTH : (i + 1) * WIDTH].equal(alone.quantized)
            assert indices[:, i].equal(alone.indices)
        total = (x - quantized).square().flatten(1).sum(1)
        assert torch.allclose(losses["commitment"], total, rtol=1e-4)
