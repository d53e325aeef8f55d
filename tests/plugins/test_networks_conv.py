"""Tests of the convolutional networks: any size and rank, and the layers of an image by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vaezoo.data.spec import DataSpec, Domain
from vaezoo.nn.scaling import level_sizes
from vaezoo_networks.conv import ConvDecoder, ConvDown, ConvEncoder, ConvUp
from vaezoo_networks.convolutional import ConvNetwork, ResNetwork
from vaezoo_networks.dense import MLPNetwork
from vaezoo_networks.options import ConvOptions, MLPOptions

HIDDEN = (4, 6, 8)
MOST = {1: 70, 2: 37, 3: 13}


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, ...]:
    ndim = draw(st.integers(1, 3))
    sizes = draw(st.lists(st.integers(1, MOST[ndim]), min_size=ndim, max_size=ndim))
    return (draw(st.integers(1, 13)), *sizes)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(shapes(), st.integers(1, 3), st.booleans(), st.integers(1, 9))
def test_down_and_up_come_back_to_the_same_size(
    shape: tuple[int, ...], levels: int, residual: bool, channels: int
) -> None:
    """Of signals, images and volumes, of odd sizes too; the decoder to its own channels."""
    hidden = HIDDEN[:levels]
    out_shape = (channels, *shape[1:])
    down, up = (
        ConvDown(DataSpec(shape=shape), hidden, residual),
        ConvUp(out_shape, hidden, residual),
    )
    small = down(torch.rand(2, *shape))
    halves = shape[1:]
    for _ in range(levels):
        halves = tuple((size + 1) // 2 for size in halves)
    assert small.shape == (2, hidden[-1], *halves)
    assert level_sizes(shape, levels)[-1] == halves
    assert up(small).shape == (2, *out_shape)
    blocks = sum(type(part).__name__ == "ResidualBlock" for part in [*down, *up])
    assert blocks == (2 * levels if residual else 0)


@pytest.mark.parametrize("shape", [(2, 21), (3, 12, 20), (1, 5, 9, 8)])
def test_flat_networks_hold_them(shape: tuple[int, ...]) -> None:
    """The same weights give the same values."""
    data = DataSpec(shape=shape)
    encoder, decoder = ConvEncoder(data, HIDDEN), ConvDecoder(5, shape, HIDDEN)
    down, up = ConvDown(data, HIDDEN), ConvUp(shape, HIDDEN)
    down.load_state_dict(encoder.state_dict())
    up.load_state_dict(nn.Sequential(*list(decoder)[2:]).state_dict())
    x, z = torch.rand(2, *shape), torch.randn(2, 5)
    assert encoder(x).equal(down(x).flatten(1))
    assert encoder.out_features == down(x)[0].numel()
    assert decoder(z).equal(up(decoder[1](decoder[0](z))))


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.LeakyReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class _Shift(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 - 1


def _levels(convolutions: list[nn.Module], widths: list[int], residual: bool) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for convolution, width in zip(convolutions, widths, strict=True):
        layers.append(nn.Sequential(convolution, nn.BatchNorm2d(width), nn.LeakyReLU()))
        layers += [_Block(width)] if residual else []
    return layers


@pytest.mark.parametrize("residual", [False, True])
def test_of_images_it_is_these_layers(residual: bool) -> None:
    """The names, the first weights and the values of a plain torch model, made in this order."""
    shape, widths = (3, 9, 14), [*HIDDEN]
    torch.manual_seed(0)
    layers: list[nn.Module] = [_Shift()]
    for a, b in pairwise([3, *widths]):
        layers += _levels([nn.Conv2d(a, b, 3, 2, 1, bias=False)], [b], residual)
    sizes = [(2, 2), (3, 4), (5, 7), (9, 14)]
    up: list[nn.Module] = []
    for (a, b), (small, large) in zip(pairwise([8, 6, 4, 4]), pairwise(sizes), strict=True):
        extra = [m - (2 * n - 1) for n, m in zip(small, large, strict=True)]
        made = nn.ConvTranspose2d(a, b, 3, 2, 1, output_padding=extra, bias=False)
        up += _levels([made], [b], residual)
    up.append(nn.Conv2d(4, 3, 3, padding=1))
    reference = nn.ModuleList([nn.Sequential(*layers), nn.Sequential(*up)])
    torch.manual_seed(0)
    mine = nn.ModuleList(
        [ConvDown(DataSpec(shape=shape), HIDDEN, residual), ConvUp(shape, HIDDEN, residual)]
    )
    found, expected = mine.state_dict(), reference.state_dict()
    assert [*found] == [*expected]
    assert all(found[name].equal(expected[name]) for name in expected)
    x = torch.rand(64, *shape)  # so many values that strided.py leaves the work to torch
    small, right = mine[0](x), reference[0](x)
    assert small.equal(right)
    assert mine[1](small).equal(reference[1](right))


@pytest.mark.parametrize("shape", [(2, 13), (3, 9, 8), (1, 5, 6, 7)])
@pytest.mark.parametrize("network", [ConvNetwork, ResNetwork, MLPNetwork])
def test_real_values_are_not_rescaled(
    shape: tuple[int, ...], network: type[ConvNetwork | MLPNetwork]
) -> None:
    """Standardised values go to the first layer as they are, others as 2 x - 1 or log(1 + x)."""
    options = (MLPOptions if network is MLPNetwork else ConvOptions)(hidden=HIDDEN)
    networks = {}
    domains: tuple[Domain, ...] = ("unit", "binary", "real", "count")
    for domain in domains:
        torch.manual_seed(0)
        networks[domain] = network(options, DataSpec(shape=shape, domain=domain)).encoder(5).eval()
    x = torch.rand(2, *shape)
    assert networks["unit"](x).equal(networks["real"](2 * x - 1))
    assert networks["binary"](x).equal(networks["unit"](x))
    counts = (100 * x).round()
    found, right = networks["count"](counts), networks["real"](torch.log(1 + counts))
    assert torch.allclose(found, right, atol=1e-5)
