"""Tests of the convolutional networks: shapes at any size, with and without a flat latent."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vaezoo.nn.conv import ConvDecoder, ConvDown, ConvEncoder, ConvUp, level_sizes

HIDDEN = (4, 6, 8)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 64), (2, 9, 31), (1, 8, 8)])
def test_down_and_up_come_back_to_the_same_size(
    shape: tuple[int, int, int], residual: bool
) -> None:
    down, up = ConvDown(shape, HIDDEN, residual), ConvUp(shape, HIDDEN, residual)
    small = down(torch.rand(2, *shape))
    assert small.shape == (2, 8, *level_sizes(shape, 3)[-1])
    assert up(small).shape == (2, *shape)
    blocks = sum(type(part).__name__ == "ResidualBlock" for part in [*down, *up])
    assert blocks == (6 if residual else 0)


def test_flat_networks_hold_them() -> None:
    """The same weights give the same values."""
    shape = (3, 12, 20)
    encoder, decoder = ConvEncoder(shape, HIDDEN), ConvDecoder(5, shape, HIDDEN)
    down, up = ConvDown(shape, HIDDEN), ConvUp(shape, HIDDEN)
    down.load_state_dict(encoder.state_dict())
    up.load_state_dict(nn.Sequential(*list(decoder)[2:]).state_dict())
    x, z = torch.rand(2, *shape), torch.randn(2, 5)
    assert encoder(x).equal(down(x).flatten(1))
    assert encoder.out_features == down(x)[0].numel()
    assert decoder(z).equal(up(decoder[1](decoder[0](z))))
