"""Terms of the steps between two log lines, kept on the device and read once."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vaezoo.distributed import processes, total


class Window:
    """Values of each step, [steps, terms], without a synchronisation until they are read."""

    def __init__(self, steps: int, terms: int, device: torch.device) -> None:
        self.values = torch.zeros((steps, terms), device=device)
        self.count = 0

    def add(self, values: Tensor) -> None:
        """The values of one step: [terms]."""
        self.values[self.count] = values
        self.count += 1

    @property
    def full(self) -> bool:
        return self.count == len(self.values)

    def read(self) -> list[list[float]]:
        """The values so far, a list a step, and start anew. Waits for the device."""
        rows = self.peek()
        self.count = 0
        return rows

    def peek(self) -> list[list[float]]:
        """The values so far, a list a step. Waits for the device."""
        rows: list[list[float]] = self.saved().tolist()
        return rows

    def saved(self) -> Tensor:
        """What a checkpoint keeps of a window: means over the processes that share its steps."""
        return total(self.values[: self.count]) / processes()

    def restore(self, saved: Tensor) -> None:
        self.values[: len(saved)] = saved.to(self.values.device)
        self.count = len(saved)


def means(rows: Sequence[Sequence[float]]) -> list[float]:
    """The mean of each term over the steps of a window."""
    return [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]


def finite(rows: Sequence[Sequence[float]]) -> list[Sequence[float]]:
    """The steps whose values are all numbers."""
    return [values for values in rows if all(map(math.isfinite, values))]


def first_broken(
    rows: Sequence[Sequence[float]], names: Sequence[str]
) -> tuple[int, str, float] | None:
    """The first value that is no finite number: (row, name, value).

    In the step where it happened a term is to blame before the objective that sums them.
    """
    for row, values in enumerate(rows):
        broken = [
            (name, value)
            for name, value in zip(names, values, strict=True)
            if not math.isfinite(value)
        ]
        if broken:
            name, value = min(broken, key=lambda pair: pair[0].endswith("objective"))
            return row, name, value
    return None
