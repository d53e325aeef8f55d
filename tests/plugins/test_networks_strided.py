"""Tests that strided convolutions as a matrix product equal torch's, gradients included."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from vaezoo_networks import strided
from vaezoo_networks.strided import StridedConv2d, StridedConvTranspose2d

SIZES = st.tuples(st.integers(1, 7), st.integers(1, 7))
CHANNELS = st.tuples(st.integers(1, 5), st.integers(1, 5))


def gradients(y: Tensor, layer: nn.Module, x: Tensor, way: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad((y * way).sum(), [x, *layer.parameters()]))


def check_same(layer: Any, library: Tensor, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(strided, "_more_weights_than_inputs", lambda weight, x: True)
        ours = layer(x)
    assert ours.shape == library.shape
    torch.testing.assert_close(ours, library)
    way = torch.randn_like(library)
    for a, b in zip(gradients(ours, layer, x, way), gradients(library, layer, x, way), strict=True):
        torch.testing.assert_close(a, b)


@given(size=SIZES, channels=CHANNELS, batch=st.integers(1, 3))
def test_convolution(size: tuple[int, int], channels: tuple[int, int], batch: int) -> None:
    layer = StridedConv2d(*channels).double()
    x = torch.randn(batch, channels[0], *size, dtype=torch.float64, requires_grad=True)
    library = F.conv2d(x, layer.weight, stride=2, padding=1)
    with pytest.MonkeyPatch.context() as patch:
        check_same(layer, library, x, patch)


@given(
    size=SIZES,
    channels=CHANNELS,
    batch=st.integers(1, 3),
    extra=st.tuples(st.integers(0, 1), st.integers(0, 1)),
)
def test_transposed_convolution(
    size: tuple[int, int], channels: tuple[int, int], batch: int, extra: tuple[int, int]
) -> None:
    layer = StridedConvTranspose2d(*channels, extra).double()
    x = torch.randn(batch, channels[0], *size, dtype=torch.float64, requires_grad=True)
    library = F.conv_transpose2d(x, layer.weight, stride=2, padding=1, output_padding=extra)
    with pytest.MonkeyPatch.context() as patch:
        check_same(layer, library, x, patch)


def test_gradients_of_gradients() -> None:
    """A gradient penalty needs second derivatives."""
    for layer in (StridedConv2d(4, 6), StridedConvTranspose2d(4, 6, (1, 0))):
        layer.double()
        x = torch.randn(1, 4, 3, 2, dtype=torch.float64, requires_grad=True)
        assert strided._more_weights_than_inputs(layer.weight, x)
        assert torch.autograd.gradgradcheck(lambda x, layer=layer: layer(x).sin(), (x,))


def test_torch_computes_large_maps_and_on_accelerators() -> None:
    weight = torch.empty(2, 3, 3, 3)
    assert strided._more_weights_than_inputs(weight, torch.empty(1, 3, 3, 3))
    assert not strided._more_weights_than_inputs(weight, torch.empty(1, 3, 6, 3))
    assert not strided._more_weights_than_inputs(
        weight.to("meta"), torch.empty(1, 3, 3, 3, device="meta")
    )
