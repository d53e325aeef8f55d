"""Network, the interface of networks: a factory of the encoder and the decoder of a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from vaezoo.data.spec import DataSpec
from vaezoo.errors import OptionError
from vaezoo.options import Options


class Network(ABC):
    """Builds encoders and decoders for one shape of data; it has no weights itself.

    The encoders take examples, [batch, *data.shape], in [0, 1], or standardised if the data is
    real. Each call of a method builds a new module with weights of its own.
    """

    expected_failures: ClassVar[Mapping[str, str]] = {}
    """Checks of vaezoo.testing that fail for a good reason: name -> the reason."""

    latent_grid: tuple[int, ...] = ()
    """The spatial size of its grid of features; () if it has none."""

    def __init__(self, options: Options, data: DataSpec) -> None:
        self.options = options
        self.data = data

    @abstractmethod
    def encoder(self, out_features: int) -> nn.Module:
        """A module from examples to features: [batch, *data.shape] -> [batch, out_features]."""

    @abstractmethod
    def decoder(self, in_features: int, out_shape: tuple[int, ...]) -> nn.Module:
        """A module from features to a shape, unbounded: [batch, in_features] to out_shape.

        out_shape: data.shape, with another number of channels if the likelihood needs it.
        """

    def grid_encoder(self, channels: int) -> nn.Module:
        """A module to a grid: [batch, *data.shape] -> [batch, channels, *latent_grid].

        OptionError if this network has no grid.
        """
        raise OptionError(f"{type(self).__name__} has no grid of features: give another --network")

    def grid_decoder(self, channels: int, out_shape: tuple[int, ...]) -> nn.Module:
        """A module from a grid: [batch, channels, *latent_grid] -> [batch, *out_shape], unbounded.

        OptionError if this network has no grid.
        """
        raise OptionError(f"{type(self).__name__} has no grid of features: give another --network")
