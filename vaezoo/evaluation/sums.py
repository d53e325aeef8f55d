"""Sums over examples, on the device, in double precision where it has that.

Each of several processes may add some of the examples: what it has is one tensor, and the sums of
the others join it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Sum(ABC):
    """What is kept of examples that were seen in any order, and in any number of parts."""

    @property
    @abstractmethod
    def state(self) -> Tensor | None:
        """All of it; None before anything was added."""

    @abstractmethod
    def join(self, state: Tensor) -> None:
        """Add what another sum, of other examples, has."""


class Total(Sum):
    """The sum of tensors of one shape."""

    def __init__(self) -> None:
        self.values: Tensor | None = None

    def add(self, values: Tensor) -> None:
        self.values = values if self.values is None else self.values + values

    @property
    def state(self) -> Tensor | None:
        return self.values

    def join(self, state: Tensor) -> None:
        self.add(state if self.values is None else state.to(self.values.device))


class Moments(Sum):
    """Sums and squares over the examples, of one number or of each of several."""

    def __init__(self) -> None:
        self.count = 0
        self.shift: Tensor | None = None
        self.sums = self.squares = torch.zeros(())

    def add(self, values: Tensor) -> None:
        """values: [batch, ...]."""
        values = double(values)
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

    def join(self, state: Tensor) -> None:
        if self.shift is None:
            self.shift, self.sums, self.squares = state[1:]
            self.count = int(state[0].max())
            return
        count, shift, sums, squares = state.to(self.shift)
        moved = shift - self.shift
        self.sums = self.sums + sums + count * moved
        self.squares = self.squares + squares + 2 * moved * sums + count * moved.square()
        self.count += int(count.max())


class Mean(Moments):
    """The mean of a number over the examples, and its standard error. `add` takes [batch]."""

    @property
    def mean(self) -> float:
        assert self.shift is not None
        return float(self.shift) + float(self.sums) / self.count

    @property
    def standard_error(self) -> float | None:
        """Of the mean, the examples taken for independent; None for a single one."""
        if self.count < 2:
            return None
        off = float(self.sums) / self.count
        variance = max(0.0, float(self.squares) / self.count - off * off)
        return math.sqrt(variance / (self.count - 1))


class RunningMoments(Moments):
    """Mean and variance of each column over the examples. `add` takes [batch, columns]."""

    @property
    def mean(self) -> Tensor:
        assert self.shift is not None
        return self.shift + self.sums / self.count

    @property
    def variance(self) -> Tensor:
        mean = self.sums / self.count
        return (self.squares / self.count - mean.square()).clamp(min=0)


def double(values: Tensor) -> Tensor:
    return values.float() if values.device.type == "mps" else values.double()
