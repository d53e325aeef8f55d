"""Scalar quantization: how many codes, which they are, all within reach, and its gradient."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

import vaezoo
from vaezoo.errors import OptionError
from vaezoo_discrete.fsq import ScalarQuantizer

LEVELS = [(8, 5, 5, 5), (2,), (3, 2), (4, 4), (7, 5, 6)]


def features(width: int, n: int = 6, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(n, width, 3, 4, generator=torch.Generator().manual_seed(0))


def by_hand(value: float, levels: int) -> float:
    """Section 3.1 for one number: where it is before it is rounded."""
    reach = (levels - 1) * 1.001 / 2
    offset = 0.0 if levels % 2 else 0.5
    return math.tanh(value + math.atanh(offset / reach)) * reach - offset


@pytest.mark.parametrize("levels", LEVELS)
class TestCodes:
    def test_are_as_many_as_the_product(self, levels: tuple[int, ...]) -> None:
        quantize = ScalarQuantizer(levels)
        assert quantize.num_codes == math.prod(levels)
        everything = quantize.indices_to_codes(torch.arange(quantize.num_codes)[:, None, None])
        assert len(everything.flatten(1).unique(dim=0)) == quantize.num_codes

    def test_and_vectors_are_one_to_one(self, levels: tuple[int, ...]) -> None:
        quantize = ScalarQuantizer(levels)
        codes = torch.arange(quantize.num_codes).view(1, 1, -1)
        z = quantize.indices_to_codes(codes)
        assert z.shape == (1, len(levels), 1, quantize.num_codes)
        assert quantize.codes_to_indices(z).equal(codes)
        assert ((z >= -1) & (z <= 1)).all()

    def test_are_mixed_radix(self, levels: tuple[int, ...]) -> None:
        """The vectors of codes 0, 1, 2, ... count up, the first channel fastest."""
        quantize = ScalarQuantizer(levels)
        z = quantize.indices_to_codes(torch.arange(quantize.num_codes)[:, None, None]).flatten(1)
        digits = itertools.product(*(range(n) for n in reversed(levels)))
        for code, number in enumerate(digits):
            for channel, digit in enumerate(reversed(number)):
                half = levels[channel] // 2
                assert z[code, channel] == pytest.approx((digit - half) / half)

    def test_are_all_within_reach(self, levels: tuple[int, ...]) -> None:
        quantize = ScalarQuantizer(levels)
        line = torch.linspace(-9, 9, 2001)
        x = line[:, None, None, None].expand(-1, len(levels), 1, 1)
        z = quantize.indices_to_codes(quantize(x).indices)[:, :, 0, 0]
        for channel, count in enumerate(levels):
            half = count // 2
            expected = torch.tensor([(i - half) / half for i in range(count)])
            assert z[:, channel].unique().sort().values.equal(expected)

    def test_come_from_the_bound_by_hand(self, levels: tuple[int, ...]) -> None:
        quantize, x = ScalarQuantizer(levels), features(len(levels))
        output = quantize(x)
        codes, bounded_x = quantize.indices_to_codes(output.indices), quantize.bound(x)
        for channel, count in enumerate(levels):
            half = count // 2
            for value, feature, z in zip(
                x[:, channel].flatten().tolist(),
                bounded_x[:, channel].flatten().tolist(),
                codes[:, channel].flatten().tolist(),
                strict=True,
            ):
                bounded = by_hand(value, count)
                assert feature == pytest.approx(bounded, abs=1e-4)
                if abs(abs(bounded) % 1 - 0.5) > 1e-3:
                    assert z == pytest.approx(round(bounded) / half)
        assert torch.allclose(output.quantized, codes, atol=1e-6)

    def test_gradient_is_the_one_of_the_bound(self, levels: tuple[int, ...]) -> None:
        quantize = ScalarQuantizer(levels)
        x = features(len(levels)).requires_grad_()
        half = torch.tensor([n // 2 for n in levels])[:, None, None]
        weight = torch.randn_like(x)
        (straight,) = torch.autograd.grad((weight * quantize(x).quantized).sum(), x)
        (bound,) = torch.autograd.grad((weight * quantize.bound(x) / half).sum(), x)
        assert torch.allclose(straight, bound, rtol=1e-6)
        assert (straight.abs() > 0).all()

    def test_zero_is_kept_at_zero(self, levels: tuple[int, ...]) -> None:
        quantize = ScalarQuantizer(levels)
        assert quantize.bound(torch.zeros(1, len(levels), 1, 1)).abs().max() < 1e-5


def test_nothing_of_it_is_learned_or_saved() -> None:
    quantize = ScalarQuantizer((8, 5, 5, 5))
    assert list(quantize.parameters()) == []
    assert quantize.state_dict() == {}
    assert quantize(features(4)).quantized.shape == (6, 4, 3, 4)


def test_half_precision_features() -> None:
    quantize, x = ScalarQuantizer((8, 5)), features(2)
    output = quantize(x.bfloat16())
    assert output.quantized.dtype == torch.float32
    assert output.indices.equal(quantize(x.bfloat16().float()).indices)


def test_far_features_have_the_outermost_codes() -> None:
    quantize = ScalarQuantizer((8, 5))
    assert quantize(torch.full((1, 2, 1, 1), 1e6)).indices.item() == 39
    assert quantize(torch.full((1, 2, 1, 1), -1e6)).indices.item() == 0
    assert quantize.codes_to_indices(torch.full((1, 2, 1, 1), 5.0)).item() == 39


@pytest.mark.parametrize(
    ("levels", "said"),
    [((2048, 513), "1,050,624 codes, and 1,048,576"), ((8, 1), "greater than or equal to 2")],
)
def test_levels_that_cannot_be(levels: tuple[int, ...], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        vaezoo.create_model("fsq", data=(1, 28, 28), levels=levels)
