"""What networks share whose encoders give a grid that is smaller than the image."""

from __future__ import annotations

import math
from typing import ClassVar

from torch import nn

from vaezoo import Network

from .checkpointing import checkpoint_blocks
from .options import CheckpointingOptions

_VECTOR_CHANNELS = 16
"""Channels of the grid that a vector is made of."""


class GridNetwork(Network):
    """A network for grids that gives vectors too: 16 channels of the grid, flattened.

    A subclass sets `latent_grid`, and defines `grid_encoder` and `grid_decoder`, whose modules it
    passes through `checkpointed`.
    """

    options: CheckpointingOptions
    block_kinds: ClassVar[tuple[type[nn.Module], ...]]
    """The blocks that activation checkpointing computes again."""

    def checkpointed(self, body: nn.Module) -> nn.Module:
        """The body, its blocks checkpointed if the options say so."""
        if not self.options.activation_checkpointing:
            return body
        return checkpoint_blocks(body, self.block_kinds)

    def encoder(self, out_features: int) -> nn.Module:
        features = _VECTOR_CHANNELS * math.prod(self.latent_grid)
        body = self.grid_encoder(_VECTOR_CHANNELS)
        return nn.Sequential(body, nn.Flatten(), nn.Linear(features, out_features))

    def decoder(self, in_features: int, out_shape: tuple[int, ...]) -> nn.Module:
        shape = (_VECTOR_CHANNELS, *self.latent_grid)
        return nn.Sequential(
            nn.Linear(in_features, math.prod(shape)),
            nn.Unflatten(1, shape),
            self.grid_decoder(_VECTOR_CHANNELS, out_shape),
        )
