"""The networks `mlp` and `gated_mlp`: dense layers, for data of any shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

from torch import nn

from vaezoo import Network
from vaezoo.nn.scaling import rescaling

from .options import MLPOptions


class MLPNetwork(Network):
    """Linear layers with ReLU; the decoder is the mirror of the encoder."""

    gated: ClassVar[bool] = False
    options: MLPOptions

    def encoder(self, out_features: int) -> nn.Module:
        hidden = self.options.hidden
        layers = self._layers([self.data.numel, *hidden])
        body = nn.Sequential(*rescaling(self.data), nn.Flatten(), *layers)
        return nn.Sequential(body, nn.Linear(hidden[-1], out_features))

    def decoder(self, in_features: int, out_shape: tuple[int, ...]) -> nn.Module:
        hidden = self.options.hidden
        last = nn.Linear(hidden[0], math.prod(out_shape))
        layers = self._layers([in_features, *reversed(hidden)])
        return nn.Sequential(*layers, last, nn.Unflatten(1, out_shape))

    def _layers(self, widths: Sequence[int]) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += (
                [nn.Linear(a, 2 * b), nn.GLU()] if self.gated else [nn.Linear(a, b), nn.ReLU()]
            )
        return layers


class GatedMLPNetwork(MLPNetwork):
    """MLPNetwork with gates: h ⊙ sigmoid(g) (Dauphin et al. 2016, equation 1)."""

    gated = True
