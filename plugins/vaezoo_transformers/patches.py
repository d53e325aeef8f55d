"""Images as sequences of patches, and back."""

from __future__ import annotations

from torch import Tensor


def patchify(x: Tensor, size: int) -> Tensor:
    """The patches of images, row by row: [batch, c, h, w] -> [batch, h·w / size², c·size²].

    size: of the side of a patch, which divides h and w. The values of a patch keep the order
    [c, size, size].
    """
    grid = x.unflatten(3, (-1, size)).unflatten(2, (-1, size))
    return grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpatchify(patches: Tensor, size: int, grid: tuple[int, int]) -> Tensor:
    """The inverse of `patchify`: [batch, rows·columns, c·size²] -> [batch, c, h, w].

    grid: numbers of rows and columns of patches.
    """
    values = patches.unflatten(2, (-1, size, size)).unflatten(1, grid)
    return values.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
