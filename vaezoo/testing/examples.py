"""Small synthetic data of every kind for the checks, which a model can learn."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from vaezoo.data.base import Batch
from vaezoo.data.spec import DataSpec, Domain
from vaezoo.plugins.specs import InputSpec

EXAMPLES = 64
"""`num_examples` of every DataSpec here."""


def labelled(shape: tuple[int, ...], domain: Domain = "unit") -> DataSpec:
    classes = ("first", "second", "third")
    return DataSpec(shape=shape, domain=domain, class_names=classes, num_examples=EXAMPLES)


def small_image(takes: InputSpec) -> DataSpec:
    """The image of most checks: 16×16 with one channel, or the nearest that the model accepts."""
    return labelled(((takes.channels or (1,))[0], *_sides(takes, 16, 16)))


def edge_cases(takes: InputSpec) -> Iterator[DataSpec]:
    """Data specs at the limits of an InputSpec: sizes, channels, domains, labels, vectors."""
    low = max(takes.min_size, 4)
    for sides in ((28, 28), (32, 32), (64, 64), (low, low), (low, low + 9), (37, 29)):
        for channels in takes.channels or (1, 3):
            yield labelled((channels, *_sides(takes, *sides)))
    shape = small_image(takes).shape
    yield labelled(shape, "binary")
    if not takes.labels:
        yield DataSpec(shape=shape, num_examples=EXAMPLES)
    if takes.vectors:
        yield from (labelled((12,), "real"), labelled((5,), "unit"), labelled((30,), "binary"))


def _sides(takes: InputSpec, *sides: int) -> list[int]:
    """The nearest sides that the model accepts."""
    return [max(takes.min_size, min(side, takes.max_size or side)) for side in sides]


def make_batch(data: DataSpec, count: int) -> Batch:
    """Different examples with few degrees of freedom; the same ones each time.

    Images are blurred spots at different positions; vectors are sums of three sine waves.
    """
    number = torch.arange(count)
    # Multiples of irrational numbers fill the square evenly.
    across, down = (number * 0.7549) % 1.0, (number * 0.5698) % 1.0
    if data.is_image:
        x = _spots(across, down, data)
    else:
        position = torch.arange(data.numel) / data.numel
        weights = torch.stack([across, down, 1 - across]) - 0.5
        waves = torch.stack([torch.sin(2 * math.pi * k * position + k) for k in (1, 2, 3)])
        x = 2.0 * weights.T @ waves
        if data.domain != "real":
            x = torch.sigmoid(2 * x)
    if data.domain == "binary":
        x = (x >= 0.5).float()
    return Batch(x, number % len(data.class_names) if data.class_names else None)


def _spots(across: Tensor, down: Tensor, data: DataSpec) -> Tensor:
    rows = (torch.arange(data.height) + 0.5) / data.height
    columns = (torch.arange(data.width) + 0.5) / data.width
    squares = (rows[None, :, None] - down[:, None, None]).square() + (
        columns[None, None, :] - across[:, None, None]
    ).square()
    spots = torch.exp(-squares / (2 * 0.2**2))
    shades = torch.linspace(1.0, 0.5, data.channels)
    return spots[:, None] * shades[None, :, None, None]
