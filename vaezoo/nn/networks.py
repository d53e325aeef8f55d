"""Build the encoder and decoder networks that the options name."""

from __future__ import annotations

from torch import nn

from vaezoo.data.spec import DataSpec
from vaezoo.errors import DataError
from vaezoo.nn.conv import ConvDecoder, ConvEncoder
from vaezoo.nn.mlp import MLPDecoder, MLPEncoder
from vaezoo.nn.options import BackboneOptions


def make_encoder(options: BackboneOptions, data: DataSpec, out_features: int) -> nn.Sequential:
    """A network from examples to features: [batch, *data.shape] -> [batch, out_features].

    DataError when the network is for images and the data is vectors.
    """
    body: ConvEncoder | MLPEncoder
    hidden = options.hidden_sizes()
    if "mlp" in options.network:
        body = MLPEncoder(data, hidden, gated=options.network == "gated_mlp")
    else:
        _check_image(options, data)
        body = ConvEncoder(data.shape, hidden, residual=options.network == "resnet")
    return nn.Sequential(body, nn.Linear(body.out_features, out_features))


def make_decoder(options: BackboneOptions, data: DataSpec, in_features: int) -> nn.Sequential:
    """The mirror of the encoder: [batch, in_features] -> [batch, *data.shape], unbounded.

    DataError as in `make_encoder`.
    """
    hidden = options.hidden_sizes()
    if "mlp" in options.network:
        return MLPDecoder(in_features, data, hidden, gated=options.network == "gated_mlp")
    _check_image(options, data)
    return ConvDecoder(in_features, data.shape, hidden, residual=options.network == "resnet")


def _check_image(options: BackboneOptions, data: DataSpec) -> None:
    if not data.is_image:
        raise DataError(
            f"--network {options.network} is for images, and this data is vectors of "
            f"{data.shape[0]} values: give --network mlp"
        )
