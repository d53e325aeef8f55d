"""The data set `sprites`: the factor grid of dSprites, drawn here, with all factors known."""

from __future__ import annotations

import hashlib
import json
import math

import torch
from torch import Tensor

from vaezoo import BaseDataset, DataSpec, Split, Splits, TensorSplit
from vaezoo.data.base import random_split
from vaezoo.errors import DataError
from vaezoo.options import to_dict

from .options import SpritesOptions

FACTORS = ("shape", "scale", "orientation", "position_x", "position_y")
SHAPES = ("square", "ellipse", "heart")
GRID = (3, 6, 40, 32, 32)
"""The number of values of each factor; in the numbers of images the last factor varies fastest."""
COUNT = math.prod(GRID)

# In units of the image's side, at scale 1. Every shape stays within REACH of its centre, and
# centres keep that far from the border, so that no sprite is ever cut off.
REACH = 0.25
SQUARE = 0.175
ELLIPSE = (0.24, 0.12)
HEART = 0.175
VERSION = 2


def factors_of(number: Tensor) -> Tensor:
    """Compute the factors, int64 [n, 5], of images from their numbers in the grid, int64 [n]."""
    columns = []
    for size in reversed(GRID):
        columns.append(number % size)
        number = number // size
    return torch.stack(columns[::-1], dim=1)


def render(factors: Tensor, height: int, width: int) -> Tensor:
    """Draw images from factor values.

    factors: int64 [n, 5]. Returns uint8 [n, 1, height, width], 0 or 255. scale is 0.5 to 1, the
    orientation turns through the full circle in 40 steps, the 32 positions span the image. A pixel
    is white when its centre lies inside the shape. Matthey et al. 2017, dSprites, is the model.
    """
    device = factors.device
    shape, scale, orientation, x, y = factors.unbind(1)
    # A table on the host: the same sines on every device.
    angles = torch.arange(GRID[2], dtype=torch.float64) * (2 * math.pi / GRID[2])
    cosine = angles.cos().float().to(device)[orientation].view(-1, 1, 1)
    sine = angles.sin().float().to(device)[orientation].view(-1, 1, 1)
    size = (0.5 + 0.1 * scale.float()).view(-1, 1, 1)
    center_x = (REACH + (1 - 2 * REACH) * x.float() / (GRID[3] - 1)).view(-1, 1, 1)
    center_y = (REACH + (1 - 2 * REACH) * y.float() / (GRID[4] - 1)).view(-1, 1, 1)

    pixel_x = ((torch.arange(width, device=device) + 0.5) / width).view(1, 1, -1) - center_x
    pixel_y = ((torch.arange(height, device=device) + 0.5) / height).view(1, -1, 1) - center_y
    u = (cosine * pixel_x + sine * pixel_y) / size
    v = (cosine * pixel_y - sine * pixel_x) / size

    square = torch.maximum(u.abs(), v.abs()) <= SQUARE
    uu, vv = u.square(), v.square()
    ellipse = uu / ELLIPSE[0] ** 2 + vv / ELLIPSE[1] ** 2 <= 1
    # (a² + b² - 1)³ ≤ a² b³, with b upwards
    ring = (uu + vv) / HEART**2 - 1
    heart = ring * ring * ring <= -uu * vv * v / HEART**5
    shape = shape.view(-1, 1, 1)
    inside = torch.where(shape == 0, square, torch.where(shape == 1, ellipse, heart))
    return inside.unsqueeze(1).to(torch.uint8) * 255


class SpritesSplit(Split):
    """Sprites by their numbers in the grid, drawn when they are requested."""

    def __init__(self, numbers: Tensor, height: int, width: int) -> None:
        self.numbers = numbers
        self.height, self.width = height, width

    def __len__(self) -> int:
        return len(self.numbers)

    def get_batch(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        factors = self.factors(index)
        return render(factors, self.height, self.width), factors[:, 0]

    @property
    def device(self) -> torch.device:
        return self.numbers.device

    def factors(self, index: Tensor) -> Tensor:
        return factors_of(self.numbers[index])

    def to(self, device: torch.device) -> Split:
        """Draw all of it on a CUDA device once, if it fits in half of the free memory there."""
        if device.type != "cuda":
            return self
        there = SpritesSplit(self.numbers.to(device), self.height, self.width)
        free, _ = torch.cuda.mem_get_info(device)
        if len(self) * self.height * self.width > free // 2:
            return there
        images = torch.empty(
            (len(self), 1, self.height, self.width), dtype=torch.uint8, device=device
        )
        labels = torch.empty(len(self), dtype=torch.int64, device=device)
        for index in torch.arange(len(self), device=device).split(4096):
            images[index], labels[index] = there.get_batch(index)  # type: ignore[assignment]
        return TensorSplit(images, labels)


class SpritesDataset(BaseDataset):
    """Three shapes in 6 sizes, 40 orientations and 32 × 32 positions: 737,280 binary images."""

    options: SpritesOptions

    def load(self) -> Splits:
        options = self.options
        height, width = options.image_size
        if min(height, width) < 8:
            raise DataError("sprites smaller than 8×8 cannot be distinguished: give --image-size 8")
        generator = torch.Generator().manual_seed(options.split_seed)
        part = _part(options.indices)
        numbers = part[torch.randperm(len(part), generator=generator)[: options.examples]]
        train, validation, test = random_split(
            len(numbers), options.test, options.validation, options.split_seed
        )
        splits = [SpritesSplit(numbers[i], height, width) for i in (train, validation, test)]
        what = f"{len(numbers):,} of {COUNT:,} sprites by seed {options.split_seed}"
        known = json.dumps([VERSION, to_dict(options)], sort_keys=True)
        return Splits(
            spec=DataSpec(
                shape=(1, height, width),
                domain="binary",
                class_names=SHAPES,
                num_examples=len(train),
            ),
            train=splits[0],
            validation=splits[1] if len(validation) else splits[2],
            test=splits[2],
            description=f"{what}: {len(train):,} to train on, {len(test):,} to test, at random",
            factor_names=FACTORS,
            fingerprint=hashlib.sha256(known.encode()).hexdigest(),
        )


def _part(indices: str | None) -> Tensor:
    if indices is None:
        return torch.arange(COUNT)
    pieces = indices.split(":")
    try:
        numbers = [int(piece) if piece.strip() else None for piece in pieces]
        part = range(COUNT)[slice(*numbers)] if len(numbers) in (2, 3) else None
    except ValueError:
        part = None
    if part is None:
        raise DataError(f"--indices {indices!r} is not start:stop or start:stop:step")
    if len(part) < 2:
        raise DataError(f"--indices {indices!r} leaves {len(part)} of {COUNT} sprites")
    return torch.tensor(part)
