"""Encoder and decoder networks: of dense layers, and those that the options name."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from vaezoo.data.spec import DataSpec
from vaezoo.errors import DataError
from vaezoo.nn.conv import ConvDecoder, ConvEncoder, rescaling
from vaezoo.nn.options import BackboneOptions


class MLPEncoder(nn.Sequential):
    """Dense layers: [batch, *shape] -> [batch, out_features]."""

    def __init__(self, data: DataSpec, hidden: Sequence[int], gated: bool = False) -> None:
        start = [*rescaling(data), nn.Flatten()]
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


def _layers(widths: Sequence[int], gated: bool) -> list[nn.Module]:
    """Linear layers with ReLU, or gated: h ⊙ sigmoid(g) (Dauphin et al. 2016, equation 1)."""
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, 2 * b), nn.GLU()] if gated else [nn.Linear(a, b), nn.ReLU()]
    return layers


def make_encoder(options: BackboneOptions, data: DataSpec, out_features: int) -> nn.Sequential:
    """A network from examples to features: [batch, *data.shape] -> [batch, out_features].

    DataError when the network has convolutions and the data is vectors.
    """
    body: ConvEncoder | MLPEncoder
    hidden = options.hidden_sizes()
    if "mlp" in options.network:
        body = MLPEncoder(data, hidden, gated=options.network == "gated_mlp")
    else:
        _check_not_vectors(options, data)
        body = ConvEncoder(data, hidden, residual=options.network == "resnet")
    return nn.Sequential(body, nn.Linear(body.out_features, out_features))


def make_decoder(options: BackboneOptions, data: DataSpec, in_features: int) -> nn.Sequential:
    """The mirror of the encoder: [batch, in_features] -> [batch, *data.shape], unbounded.

    DataError as in `make_encoder`.
    """
    hidden = options.hidden_sizes()
    if "mlp" in options.network:
        return MLPDecoder(in_features, data, hidden, gated=options.network == "gated_mlp")
    _check_not_vectors(options, data)
    return ConvDecoder(in_features, data.shape, hidden, residual=options.network == "resnet")


def _check_not_vectors(options: BackboneOptions, data: DataSpec) -> None:
    if data.ndim == 0:
        raise DataError(
            f"--network {options.network} has convolutions, and this data is {data.describe()}: "
            "give --network mlp"
        )
