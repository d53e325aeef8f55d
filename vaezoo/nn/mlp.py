"""Encoder and decoder of dense layers, for images and for vectors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from vaezoo.data.spec import DataSpec
from vaezoo.nn.conv import Rescale


class MLPEncoder(nn.Sequential):
    """Dense layers: [batch, *shape] -> [batch, out_features]."""

    def __init__(self, data: DataSpec, hidden: Sequence[int], gated: bool = False) -> None:
        # Real numbers have no range to rescale from.
        start = [nn.Flatten()] if data.domain == "real" else [Rescale(), nn.Flatten()]
        super().__init__(*start, *_layers([data.numel, *hidden], gated))
        self.out_features = hidden[-1]


class MLPDecoder(nn.Sequential):
    """The mirror of MLPEncoder: [batch, in_features] -> [batch, *shape], unbounded."""

    def __init__(
        self, in_features: int, data: DataSpec, hidden: Sequence[int], gated: bool = False
    ) -> None:
        widths = [in_features, *reversed(hidden)]
        last = nn.Linear(hidden[0], data.numel)
        super().__init__(*_layers(widths, gated), last, nn.Unflatten(1, data.shape))


class GatedLinear(nn.Module):
    """h ⊙ sigmoid(g), both linear in the input (Dauphin et al. 2016, equation 1).

    [..., in_features] -> [..., out_features].
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.both = nn.Linear(in_features, 2 * out_features)

    def forward(self, x: Tensor) -> Tensor:
        return F.glu(self.both(x), dim=-1)


def _layers(widths: Sequence[int], gated: bool) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for sizes in pairwise(widths):
        layers += [GatedLinear(*sizes)] if gated else [nn.Linear(*sizes), nn.ReLU()]
    return layers
