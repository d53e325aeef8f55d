"""Encoders and decoders of a vision transformer: on the grid of patches, and on latent tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .block import TransformerBlock
from .patches import patchify, unpatchify
from .positions import GridPositions

_STD = 0.02
"""Standard deviation of weights and tokens at the start (Dosovitskiy et al. 2020)."""


class Structure(NamedTuple):
    """What encoder and decoder have in common.

    grid: numbers of rows and columns of patches. patch_size: of the side of a patch, in pixels.
    """

    grid: tuple[int, int]
    patch_size: int
    embed_dim: int
    depth: int
    num_heads: int
    learned_positions: bool = False

    def positions(self) -> GridPositions:
        """The position embeddings of the patches."""
        return GridPositions(self.grid, self.embed_dim, learned=self.learned_positions)

    def patch_values(self, channels: int) -> int:
        """The number of values of a patch."""
        return channels * self.patch_size**2


class Transformer(nn.Sequential):
    """Transformer blocks and a LayerNorm: [batch, positions, embed_dim] -> the same shape."""

    def __init__(self, structure: Structure) -> None:
        width, heads = structure.embed_dim, structure.num_heads
        blocks = (TransformerBlock(width, heads) for _ in range(structure.depth))
        super().__init__(*blocks, nn.LayerNorm(width))


class PatchEmbedding(nn.Module):
    """Patches of images, each mapped linearly: [batch, channels, h, w] -> [batch, n, embed_dim].

    With the embeddings of their positions (Dosovitskiy et al. 2020, equation 1). rescale: the first
    layers, without weights: from [0, 1] to [-1, 1].
    """

    def __init__(
        self, structure: Structure, channels: int, rescale: Sequence[nn.Module] = ()
    ) -> None:
        super().__init__()
        self.patch_size = structure.patch_size
        self.rescale = nn.Sequential(*rescale)
        self.project = nn.Linear(structure.patch_values(channels), structure.embed_dim)
        self.positions = structure.positions()

    def forward(self, x: Tensor) -> Tensor:
        patches = patchify(self.rescale(x), self.patch_size)
        return self.positions(self.project(patches))


class PatchHead(nn.Module):
    """From features of patches to images: [batch, n, embed_dim] -> [batch, channels, h, w].

    A linear layer gives the values of each patch. A 3×3 convolution, which is the identity at the
    start, then smooths the borders of patches.
    """

    def __init__(self, structure: Structure, channels: int) -> None:
        super().__init__()
        self.patch_size, self.grid = structure.patch_size, structure.grid
        self.project = nn.Linear(structure.embed_dim, structure.patch_values(channels))
        self.conv_out = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        nn.init.dirac_(self.conv_out.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(unpatchify(self.project(x), self.patch_size, self.grid))


class GridEncoder(nn.Module):
    """From images to a feature vector of each patch: [batch, channels, h, w] to out_channels, grid.

    [batch, out_channels, *grid]. rescale: see PatchEmbedding.
    """

    def __init__(
        self,
        structure: Structure,
        channels: int,
        out_channels: int,
        rescale: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.grid = structure.grid
        self.embedding = PatchEmbedding(structure, channels, rescale)
        self.transformer = Transformer(structure)
        self.out = nn.Linear(structure.embed_dim, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        features = self.out(self.transformer(self.embedding(x)))
        return features.mT.unflatten(2, self.grid)


class GridDecoder(nn.Module):
    """From a grid to images: [batch, in_channels, *grid] -> [batch, channels, h, w]."""

    def __init__(self, structure: Structure, in_channels: int, channels: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(in_channels, structure.embed_dim)
        self.positions = structure.positions()
        self.transformer = Transformer(structure)
        self.head = PatchHead(structure, channels)

    def forward(self, z: Tensor) -> Tensor:
        features = self.positions(self.embedding(z.flatten(2).mT))
        return self.head(self.transformer(features))


class TokenEncoder(nn.Module):
    """From images to latent tokens: [batch, channels, h, w] -> [batch, out_channels, tokens].

    Learned tokens follow the patches, and only what the transformer makes of these is kept (Yu et
    al. 2024, section 3.2). rescale: see PatchEmbedding.
    """

    def __init__(
        self,
        structure: Structure,
        channels: int,
        tokens: int,
        out_channels: int,
        rescale: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.embedding = PatchEmbedding(structure, channels, rescale)
        self.tokens = nn.Parameter(_STD * torch.randn(tokens, structure.embed_dim))
        self.transformer = Transformer(structure)
        self.out = nn.Linear(structure.embed_dim, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.embedding(x)
        tokens = self.tokens.expand(len(x), -1, -1)
        features = self.transformer(torch.cat([patches, tokens], 1))
        return self.out(features[:, patches.shape[1] :]).mT


class TokenDecoder(nn.Module):
    """From latent tokens to images: [batch, in_channels, tokens] -> [batch, channels, h, w].

    One learned mask token, with the embedding of its position, stands for each patch; the
    transformer fills them in from the latent tokens (Yu et al. 2024, section 3.2).
    """

    def __init__(self, structure: Structure, tokens: int, in_channels: int, channels: int) -> None:
        super().__init__()
        width = structure.embed_dim
        self.embedding = nn.Linear(in_channels, width)
        self.token_positions = nn.Parameter(_STD * torch.randn(tokens, width))
        self.mask = nn.Parameter(_STD * torch.randn(width))
        self.positions = structure.positions()
        self.transformer = Transformer(structure)
        self.head = PatchHead(structure, channels)

    def forward(self, z: Tensor) -> Tensor:
        tokens = self.embedding(z.mT) + self.token_positions
        masks = self.positions(self.mask.expand(len(z), self.positions.embeddings.shape[0], -1))
        features = self.transformer(torch.cat([masks, tokens], 1))
        return self.head(features[:, : masks.shape[1]])
