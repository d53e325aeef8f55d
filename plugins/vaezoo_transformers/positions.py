"""Position embeddings of a grid of patches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LONGEST = 10_000.0
"""The longest wavelength, in positions, divided by 2π (Vaswani et al. 2017, section 3.5)."""
_STD = 0.02
"""Of learned embeddings at the start."""


def sinusoids(positions: int, width: int) -> Tensor:
    """sin(p·ω) and cos(p·ω) of each position p on a line: [positions, width], width even.

    The frequencies ω fall from 1 in a geometric series (Vaswani et al. 2017, section 3.5). So the
    inner product of two embeddings depends on the distance of their positions only.
    """
    half = width // 2
    frequencies = _LONGEST ** (-torch.arange(half) / half)
    angles = torch.arange(positions)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)


def grid_sinusoids(grid: tuple[int, int], width: int) -> Tensor:
    """Sinusoids of a grid, row by row: [rows·columns, width], width a multiple of 4.

    The first half of an embedding is that of the row, the other half that of the column (as in
    He et al. 2022 and many others).
    """
    rows, columns = (sinusoids(count, width // 2) for count in grid)
    shape = (*grid, width // 2)
    both = torch.cat([rows[:, None].expand(shape), columns[None].expand(shape)], 2)
    return both.flatten(0, 1)


class GridPositions(nn.Module):
    """x + the embedding of each position: [batch, rows·columns, width] -> the same shape.

    learned: the embeddings are parameters; else they are `grid_sinusoids`, which are not saved, so
    that the weights fit a grid of another size.
    """

    embeddings: Tensor

    def __init__(self, grid: tuple[int, int], width: int, *, learned: bool) -> None:
        super().__init__()
        if learned:
            self.embeddings = nn.Parameter(_STD * torch.randn(grid[0] * grid[1], width))
        else:
            self.register_buffer("embeddings", grid_sinusoids(grid, width), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.embeddings
