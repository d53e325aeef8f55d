"""Dense networks, for images and for flat vectors."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from vaezoo.data.spec import DataSpec
from vaezoo.nn.conv import Rescale


class MLPEncoder(nn.Sequential):
    """Dense layers: [batch, *shape] -> [batch, out_features]."""

    def __init__(self, data: DataSpec, hidden: Sequence[int], gated: bool = False) -> None:
        # Real numbers have no middle to be moved to.
        start = [nn.Flatten()] if data.domain == "real" else [Rescale(), nn.Flatten()]
        super().__init__(*start, *_layers([data.numel, *hidden], gated))
        self.out_features = hidden[-1]


class MLPDecoder(nn.Sequential):
    """The encoder mirrored: [batch, in_features] -> [batch, *shape], unbounded."""

    def __init__(
        self, in_features: int, data: DataSpec, hidden: Sequence[int], gated: bool = False
    ) -> None:
        widths = [in_features, *reversed(hidden)]
        last = nn.Linear(hidden[0], data.numel)
        super().__init__(*_layers(widths, gated), last, nn.Unflatten(1, data.shape))


class GatedLinear(nn.Module):
    """h ⊙ sigmoid(g), both linear in the input (Dauphin et al. 2016, equation 1)."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.both = nn.Linear(in_features, 2 * out_features)

    def forward(self, x: Tensor) -> Tensor:
        # One product for value and gate.
        return F.glu(self.both(x), dim=-1)


def _layers(widths: Sequence[int], gated: bool) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for i in range(len(widths) - 1):
        if gated:
            layers.append(GatedLinear(widths[i], widths[i + 1]))
        else:
            layers += [nn.Linear(widths[i], widths[i + 1]), nn.ReLU()]
    return layers
