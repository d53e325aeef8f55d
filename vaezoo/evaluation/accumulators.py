"""Accumulators: sums over examples on the device, in double precision where it has that."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Accumulator(ABC):
    """A statistic of examples that are added in any order and in any number of parts."""

    @property
    @abstractmethod
    def state(self) -> Tensor | None:
        """All that it holds, as one tensor; None before the first update."""

    @abstractmethod
    def merge(self, state: Tensor) -> None:
        """Add the state of another accumulator, which has seen other examples."""


class RunningSum(Accumulator):
    """The sum of tensors of one shape."""

    def __init__(self) -> None:
        self.sum: Tensor | None = None

    def update(self, values: Tensor) -> None:
        self.sum = values if self.sum is None else self.sum + values

    @property
    def state(self) -> Tensor | None:
        return self.sum

    def merge(self, state: Tensor) -> None:
        self.update(state if self.sum is None else state.to(self.sum.device))


class RunningMoments(Accumulator):
    """Mean and variance over the examples, of one number or of each of several.

    Results are on the CPU, in double precision.
    """

    def __init__(self) -> None:
        self.count = 0
        self.shift: Tensor | None = None
        self.sums = self.squares = torch.zeros(())

    def update(self, values: Tensor) -> None:
        """values: [batch, ...]."""
        values = values.float() if values.device.type == "mps" else values.double()
        if self.shift is None:
            # The shift keeps the variance from being a small difference of large numbers.
            self.shift = values.mean(0)
            self.sums = self.squares = torch.zeros_like(self.shift)
        centred = values - self.shift
        self.sums = self.sums + centred.sum(0)
        self.squares = self.squares + centred.square().sum(0)
        self.count += len(values)

    @property
    def state(self) -> Tensor | None:
        if self.shift is None:
            return None
        count = torch.full_like(self.shift, self.count)
        return torch.stack([count, self.shift, self.sums, self.squares])

    def merge(self, state: Tensor) -> None:
        if self.shift is None:
            self.shift, self.sums, self.squares = state[1:]
            self.count = int(state[0].max())
            return
        count, shift, sums, squares = state.to(self.shift)
        moved = shift - self.shift
        self.sums = self.sums + sums + count * moved
        self.squares = self.squares + squares + 2 * moved * sums + count * moved.square()
        self.count += int(count.max())

    @property
    def mean(self) -> Tensor:
        assert self.shift is not None
        return self.shift.cpu().double() + self.sums.cpu().double() / self.count

    @property
    def variance(self) -> Tensor:
        """Population variance: divided by the number of examples."""
        mean = self.sums.cpu().double() / self.count
        return (self.squares.cpu().double() / self.count - mean.square()).clamp(min=0)

    @property
    def standard_error(self) -> float | None:
        """Of the mean of one number over independent examples; None for a single example."""
        return None if self.count < 2 else math.sqrt(float(self.variance) / (self.count - 1))
