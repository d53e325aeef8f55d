"""Building blocks that models share."""

from vaezoo.nn.borrowed import freeze_bn_stats
from vaezoo.nn.conv import ConvDecoder, ConvDown, ConvEncoder, ConvUp, Rescale, level_sizes
from vaezoo.nn.mlp import GatedLinear, MLPDecoder, MLPEncoder
from vaezoo.nn.networks import make_decoder, make_encoder
from vaezoo.nn.resnet import ResidualBlock

__all__ = [
    "ConvDecoder",
    "ConvDown",
    "ConvEncoder",
    "ConvUp",
    "GatedLinear",
    "MLPDecoder",
    "MLPEncoder",
    "Rescale",
    "ResidualBlock",
    "freeze_bn_stats",
    "level_sizes",
    "make_decoder",
    "make_encoder",
]
