"""FLOPs against a hand count for each kind of layer: a multiplication and an addition are two."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vaezoo.bench.counts import count

BATCH = 8


def train(module: nn.Module, *shape: int, grad_input: bool = False) -> int:
    """FLOPs of a forward and a backward pass on meta tensors."""
    module = module.to("meta")
    x = torch.empty(BATCH, *shape, device="meta", requires_grad=grad_input)
    return count(lambda: module(x).sum().backward()).flops


def forward(module: nn.Module, *shape: int) -> int:
    module = module.to("meta")
    x = torch.empty(BATCH, *shape, device="meta")
    with torch.no_grad():
        return count(lambda: module(x)).flops


def test_linear() -> None:
    once = 2 * BATCH * 10 * 20
    assert forward(nn.Linear(10, 20), 10) == once
    assert train(nn.Linear(10, 20), 10) == 2 * once  # the first layer has no input to send back to
    assert train(nn.Linear(10, 20), 10, grad_input=True) == 3 * once


@pytest.mark.parametrize("groups", [1, 3])
def test_convolution(groups: int) -> None:
    layer = nn.Conv2d(3, 6, 3, stride=2, padding=1, groups=groups)
    outputs, per_output = BATCH * 6 * 4 * 4, (3 // groups) * 9
    once = 2 * outputs * per_output
    assert forward(layer, 3, 8, 8) == once
    assert train(layer, 3, 8, 8) == 2 * once
    assert train(layer, 3, 8, 8, grad_input=True) == 3 * once


def test_transposed_convolution() -> None:
    layer = nn.ConvTranspose2d(6, 5, 3, stride=2, padding=1, output_padding=1)
    inputs, per_input = BATCH * 6 * 4 * 4, 5 * 9
    once = 2 * inputs * per_input
    assert forward(layer, 6, 4, 4) == once
    assert train(layer, 6, 4, 4, grad_input=True) == 3 * once


def test_attention() -> None:
    heads, length, width = 2, 5, 4

    class Attention(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(x @ x.mT, dim=-1) @ x

    once = 2 * BATCH * heads * length * length * width
    assert forward(Attention(), heads, length, width) == 2 * once


def test_elementwise_work_is_no_matrix_product_and_is_not_missed() -> None:
    counts = count(lambda: F.leaky_relu(torch.empty(4, 4, device="meta")) + 1)
    assert counts.flops == 0
    assert counts.missed == {}


def test_arithmetic_that_is_left_out_is_told() -> None:
    x = torch.empty(7, 3, device="meta")
    assert sum(count(lambda: torch.cdist(x, x)).missed.values()) == 1


def test_bytes_are_read_once_and_written_once() -> None:
    x, y = (torch.empty(100, device="meta") for _ in range(2))
    assert count(lambda: x + y).bytes == 3 * 400
    assert count(lambda: x + x).bytes == 2 * 400
    assert count(lambda: x.view(10, 10)).bytes == 0
    assert count(lambda: x.mul_(2)).bytes == 2 * 400


def test_fused_bytes_are_the_products_alone() -> None:
    layer, x = nn.Linear(6, 3, device="meta"), torch.empty(8, 6, device="meta")
    weights, y, given = 4 * (6 * 3 + 3), 4 * 8 * 3, 4 * 8 * 6
    with torch.no_grad():
        assert count(lambda: layer(x)).fused_bytes == weights + given + 2 * y
        # What follows is fused: it moves nothing more.
        assert count(lambda: layer(x).tanh().exp() * 2).fused_bytes == weights + given + 2 * y


def test_fused_bytes_of_a_training_step() -> None:
    layers = nn.Sequential(nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 3, bias=False))
    layers.to("meta")
    optimizer = torch.optim.SGD(layers.parameters(), lr=0.1, momentum=0.9, foreach=True)
    x = torch.empty(8, 6, device="meta")

    def step() -> None:
        layers(x).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    step()  # the momentum is there
    first, second, given, hidden, y = (4 * n for n in (6 * 5, 5 * 3, 8 * 6, 8 * 5, 8 * 3))
    forward = first + second + given + 2 * (hidden + y)
    backward = given + second + 2 * (first + second + hidden)
    update = 2 * 2 * (first + second)  # weights and momentum, read and written
    assert count(step).fused_bytes == forward + backward + update


def test_operations_are_those_that_are_no_views() -> None:
    x = torch.rand(4, 6)
    assert count(lambda: x + x.view(6, 4).T).operations == 1
    assert count(lambda: x.flatten()[2:].expand(2, 22).unsqueeze(0)).operations == 0
    assert count(lambda: torch.empty_like(x).copy_(x)).operations == 1
    layer = nn.Linear(6, 3)
    # A product with its bias, and the sum; backward, the ones, a product and a sum.
    assert count(lambda: layer(x).sum()).operations == 2
    assert count(lambda: layer(x).sum().backward()).operations == 2 + 3


def test_counting_on_meta_equals_counting_for_real() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))
    x = torch.rand(BATCH, 1, 8, 8)
    real = count(lambda: network(x).sum().backward())
    network.to("meta")
    assert count(lambda: network(x.to("meta")).sum().backward()).flops == real.flops
