"""What a model is trained on: examples with their labels."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """x: [batch, *shape], float in [0, 1] (any number for real data). y: class numbers or None."""

    x: Tensor
    y: Tensor | None = None
