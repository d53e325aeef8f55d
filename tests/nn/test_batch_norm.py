"""Tests of freeze_bn_stats: outputs as in training, running statistics unchanged."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vaezoo.nn.batch_norm import freeze_bn_stats


def network() -> nn.Sequential:
    torch.manual_seed(0)
    plain = nn.BatchNorm1d(4, track_running_stats=False)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Sequential(plain, nn.Linear(4, 2)))


def statistics(of: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in of.named_buffers()}


def test_outputs_are_the_same_and_statistics_stay() -> None:
    net, x = network(), torch.randn(8, 3)
    before = statistics(net)
    with freeze_bn_stats(net):
        inside = net(x)
    assert all(buffer.equal(before[name]) for name, buffer in net.named_buffers())
    assert net(x).equal(inside)
    assert not any(buffer.equal(before[name]) for name, buffer in net.named_buffers())


def test_gradients_flow_through() -> None:
    net, x = network(), torch.randn(8, 3, requires_grad=True)
    with freeze_bn_stats(net):
        inside = torch.autograd.grad(net(x).square().sum(), [x, *net.parameters()])
    outside = torch.autograd.grad(net(x).square().sum(), [x, *net.parameters()])
    assert all(a.equal(b) for a, b in zip(inside, outside, strict=True))


def test_in_evaluation_nothing_is_different() -> None:
    net, x = network(), torch.randn(8, 3)
    net(10 + x)
    net.eval()
    expected, before = net(x), statistics(net)
    with freeze_bn_stats(net):
        assert net(x).equal(expected)
    assert all(buffer.equal(before[name]) for name, buffer in net.named_buffers())


def test_ends_also_after_an_error() -> None:
    net = network()
    with pytest.raises(ZeroDivisionError), freeze_bn_stats(net, net[2]):
        raise ZeroDivisionError
    assert net[1].track_running_stats
    assert not net[2][0].track_running_stats
