"""Building blocks that models share: networks with the number of features they end in."""

from vaezoo.nn.conv import ConvDecoder, ConvEncoder

__all__ = ["ConvDecoder", "ConvEncoder"]
