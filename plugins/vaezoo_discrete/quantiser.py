"""What every quantiser can do."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from .codes import CodePosterior


class Quantiser(nn.Module, ABC):
    """Makes codes of features, and of codes the vectors that the decoder sees.

    size: how many codes there are. width: channels of a code's vector.
    """

    size: int
    width: int

    @abstractmethod
    def forward(self, features: Tensor) -> CodePosterior:
        """The codes of an encoder's output, [batch, width, rows, columns]."""

    @abstractmethod
    def embed(self, codes: Tensor) -> Tensor:
        """The vectors of codes: int64 [..., rows, columns] -> [..., width, rows, columns]."""

    @abstractmethod
    def codes_of(self, z: Tensor) -> Tensor:
        """The codes of vectors: the inverse of `embed`, and the nearest code elsewhere."""
