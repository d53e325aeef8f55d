"""Small synthetic data of every kind for the checks, which a model can learn."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from vaezoo.data.base import Batch
from vaezoo.data.spec import DataSpec
from vaezoo.plugins.specs import InputSpec

CLASSES = ("first", "second", "third")
EXAMPLES = 64
"""`num_examples` of every DataSpec here."""


def small_image(takes: InputSpec) -> DataSpec:
    """The image of most checks: 16×16 with one channel, or the nearest that the model accepts."""
    size = max(16, takes.min_size)
    return _image(takes, size, size)


def small_vector() -> DataSpec:
    return DataSpec(shape=(12,), domain="real", class_names=CLASSES, num_examples=EXAMPLES)


def edge_cases(takes: InputSpec) -> Iterator[DataSpec]:
    """Data specs at the limits of an InputSpec: sizes, channels, domains, labels, vectors."""
    low = max(takes.min_size, 4)
    for height, width in ((28, 28), (32, 32), (64, 64), (low, low), (low, low + 9), (37, 29)):
        height, width = (_within(takes, side) for side in (height, width))
        for channels in takes.channels or (1, 3):
            yield _image(takes, height, width, channels)
    yield DataSpec(
        shape=small_image(takes).shape, domain="binary", class_names=CLASSES, num_examples=EXAMPLES
    )
    if not takes.labels:
        yield DataSpec(shape=small_image(takes).shape, num_examples=EXAMPLES)
    if takes.vectors:
        for domain, values in (("real", 12), ("unit", 5), ("binary", 30)):
            yield DataSpec(
                shape=(values,),
                domain=domain,  # type: ignore[arg-type]
                class_names=CLASSES,
                num_examples=EXAMPLES,
            )


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


def _image(takes: InputSpec, height: int, width: int, channels: int | None = None) -> DataSpec:
    channels = channels or (takes.channels or (1,))[0]
    shape = (channels, _within(takes, height), _within(takes, width))
    return DataSpec(shape=shape, class_names=CLASSES, num_examples=EXAMPLES)


def _within(takes: InputSpec, side: int) -> int:
    return max(takes.min_size, min(side, takes.max_size or side))
