"""Image files as a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from vaezoo import Split
from vaezoo.errors import printable


class ImageFiles(Split):
    """Image files, decoded when they are asked for.

    read: gives the files as float32, [n, *shape]. labels: int64 [n] or None.
    """

    def __init__(
        self, paths: Sequence[Path], read: Callable[[Sequence[Path]], Tensor], labels: Tensor | None
    ) -> None:
        self.paths, self.read, self.labels = paths, read, labels

    def __len__(self) -> int:
        return len(self.paths)

    def get_batch(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        images = self.read([self.paths[i] for i in index.tolist()])
        return images, None if self.labels is None else self.labels[index]

    def names(self, index: Tensor) -> list[str]:
        return [printable(str(self.paths[i])) for i in index.tolist()]
