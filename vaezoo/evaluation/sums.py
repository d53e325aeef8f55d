"""Sums over examples, on the device, in double precision where it has that."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Mean:
    """The mean of a number over the examples, and its standard error."""

    def __init__(self) -> None:
        self.count = 0
        self.total: Tensor | None = None
        self.shift = torch.zeros(())
        self.squares = torch.zeros(())

    def add(self, values: Tensor) -> None:
        """values: [batch]."""
        values = double(values)
        if self.total is None:
            # Around the first batch's mean: the spread is no small difference of large numbers.
            self.shift = values.mean()
            self.total = self.squares = values.new_zeros(())
        self.total = self.total + values.sum()
        self.squares = self.squares + (values - self.shift).square().sum()
        self.count += len(values)

    @property
    def mean(self) -> float:
        assert self.total is not None
        return float(self.total) / self.count

    @property
    def standard_error(self) -> float | None:
        """Of the mean, the examples taken for independent; None for a single one."""
        if self.count < 2:
            return None
        off = self.mean - float(self.shift)
        variance = max(0.0, float(self.squares) / self.count - off * off)
        return math.sqrt(variance / (self.count - 1))


class Columns:
    """Mean and variance of each column over the examples."""

    def __init__(self) -> None:
        self.count = 0
        self.shift: Tensor | None = None
        self.sums = self.squares = torch.zeros(())

    def add(self, values: Tensor) -> None:
        """values: [batch, columns]."""
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
    def mean(self) -> Tensor:
        assert self.shift is not None
        return self.shift + self.sums / self.count

    @property
    def variance(self) -> Tensor:
        mean = self.sums / self.count
        return (self.squares / self.count - mean.square()).clamp(min=0)


def double(values: Tensor) -> Tensor:
    return values.float() if values.device.type == "mps" else values.double()
