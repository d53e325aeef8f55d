"""The first layers of encoders, and the sizes of levels that halve the data."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from vaezoo.data.spec import DataSpec


def level_sizes(shape: Sequence[int], levels: int) -> list[tuple[int, ...]]:
    """The sizes after the channels, of the data and of each level below: halves, rounded up."""
    return [tuple(-(-size // 2**n) for size in shape[1:]) for n in range(levels + 1)]


class Rescale(nn.Module):
    """Values from [0, 1] to [-1, 1], of any shape."""

    def forward(self, x: Tensor) -> Tensor:
        return 2.0 * x - 1.0


class Log1p(nn.Module):
    """Counts from 0 to their log(1 + x), of any shape (as Lopez et al. 2018 for gene counts)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.log1p()


def rescaling(data: DataSpec) -> list[nn.Module]:
    """The first layers of an encoder: Rescale, Log1p of counts; none of standardised values."""
    if data.domain == "real":
        return []
    return [Log1p() if data.domain == "count" else Rescale()]
