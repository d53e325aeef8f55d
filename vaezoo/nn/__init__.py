"""Building blocks that models share."""

from vaezoo.nn.borrowed import borrowed
from vaezoo.nn.conv import Centre, ConvDecoder, ConvDown, ConvEncoder, ConvUp, level_sizes
from vaezoo.nn.mlp import DenseDecoder, DenseEncoder, GatedLinear
from vaezoo.nn.networks import make_decoder, make_encoder
from vaezoo.nn.resnet import ResidualBlock

__all__ = [
    "Centre",
    "ConvDecoder",
    "ConvDown",
    "ConvEncoder",
    "ConvUp",
    "DenseDecoder",
    "DenseEncoder",
    "GatedLinear",
    "ResidualBlock",
    "borrowed",
    "level_sizes",
    "make_decoder",
    "make_encoder",
]
