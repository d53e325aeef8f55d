"""Sprites: the whole grid of factors, and the image of each of its points."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import vaezoo
from vaezoo import TensorSplit
from vaezoo.errors import DataError, OptionError
from vaezoo_sprites.dataset import (
    COUNT,
    FACTORS,
    GRID,
    REACH,
    SHAPES,
    SpritesSplit,
    factors_of,
    render,
)


def drawn(*factors: int, size: int = 64) -> Tensor:
    """One sprite as truth values, [size, size]."""
    return render(torch.tensor([factors]), size, size)[0, 0] > 0


def test_the_grid_is_that_of_dsprites() -> None:
    assert GRID == (3, 6, 40, 32, 32)
    assert COUNT == 737_280


@given(st.integers(0, COUNT - 1))
def test_a_number_is_its_factors_in_mixed_radix(number: int) -> None:
    factors = factors_of(torch.tensor([number]))[0].tolist()
    back = 0
    for value, size in zip(factors, GRID, strict=True):
        assert 0 <= value < size
        back = back * size + value
    assert back == number


@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_no_shape_reaches_further_than_its_centre_is_from_the_border(shape: int) -> None:
    """However it is turned: so none is ever cut off."""
    size, middle = 128, 15
    factors = torch.tensor([[shape, GRID[1] - 1, turned, middle, middle] for turned in range(40)])
    centre = 0.25 + 0.5 * middle / 31
    _, _, rows, columns = render(factors, size, size).nonzero().unbind(1)
    away = [(numbers + 0.5) / size - centre for numbers in (rows, columns)]
    furthest = torch.hypot(*away).max()
    assert REACH - 2 / size < furthest <= REACH


@given(number=st.integers(0, COUNT - 1), size=st.sampled_from([32, 64, 96]))
def test_every_sprite_is_there_whole_and_where_it_says(number: int, size: int) -> None:
    factors = factors_of(torch.tensor([number]))
    inside = render(factors, size, size)[0, 0] > 0
    assert inside.any()
    _, _, _, x, y = factors[0].tolist()
    # At the outermost positions a corner may be in the outermost pixels without being cut off.
    if 0 < x < GRID[3] - 1 and 0 < y < GRID[4] - 1:
        assert not (inside[0].any())
        assert not (inside[-1].any())
        assert not (inside[:, 0].any())
        assert not (inside[:, -1].any())
    rows, columns = inside.nonzero().float().mean(0) + 0.5
    # Centres span the middle half; a heart's centre of mass is a little off its origin.
    assert abs(columns / size - (0.25 + 0.5 * x / 31)) < 0.06
    assert abs(rows / size - (0.25 + 0.5 * y / 31)) < 0.06


def test_area_grows_with_the_square_of_the_scale() -> None:
    for shape in range(3):
        areas = [drawn(shape, scale, 7, 16, 16, size=256).sum().item() for scale in (0, 5)]
        assert areas[1] / areas[0] == pytest.approx(4.0, rel=0.05)


def test_a_quarter_turn_is_a_quarter_turn() -> None:
    for shape in range(3):
        upright, turned = (drawn(shape, 5, o, 0, 0, size=129) for o in (0, 10))
        # The centre of the first position is at a quarter of the side.
        patch = slice(0, 65)
        a, b = upright[patch, patch], turned[patch, patch]
        best = max((torch.rot90(a, k) == b).float().mean().item() for k in (1, 3))
        assert best > 0.97


def test_an_ellipse_lies_at_nine_degrees_for_each_step_of_the_orientation() -> None:
    """By the moments of the picture: its principal axis is at o·9°, its axes are 2 to 1."""
    size = 256
    factors = torch.tensor([[1, GRID[1] - 1, step, 16, 16] for step in range(40)])
    for step, picture in enumerate(render(factors, size, size)[:, 0]):
        y, x = picture.nonzero().double().unbind(1)
        x, y = x - x.mean(), y - y.mean()
        xx, yy, xy = ((a * b).mean() for a, b in ((x, x), (y, y), (x, y)))
        degrees = math.degrees(0.5 * math.atan2(2 * xy, xx - yy))
        apart = (degrees - 9 * step + 90) % 180 - 90
        assert abs(apart) < 0.5, step
        # A uniform ellipse has the variance of a quarter of the square of each half axis.
        root = torch.sqrt((xx - yy).square() + 4 * xy.square())
        halves = [2 * math.sqrt((xx + yy + sign * root) / 2) / size for sign in (1, -1)]
        assert halves == pytest.approx([0.24, 0.12], rel=0.02)


def test_a_heart_turns_through_the_full_circle_in_equal_steps() -> None:
    """The direction from its origin to its centre of mass turns by 9° a step, in one sense."""
    size = 256
    factors = torch.tensor([[2, GRID[1] - 1, step, 0, 0] for step in range(40)])
    angles = []
    for picture in render(factors, size, size)[:, 0]:
        y, x = (picture.nonzero().double().mean(0) + 0.5) / size - REACH
        angles.append(math.degrees(math.atan2(y, x)))
    assert angles[0] == pytest.approx(-90, abs=2)  # upright: its mass is above the origin
    for step, angle in enumerate(angles):
        assert abs((angle - angles[0] - 9 * step + 180) % 360 - 180) < 2


def test_pixels_are_black_or_white() -> None:
    assert render(factors_of(torch.arange(0, COUNT, 70_001)), 64, 64).unique().tolist() == [0, 255]


def test_shapes_differ_and_hearts_stand_upright() -> None:
    square, ellipse, heart = (drawn(shape, 5, 0, 16, 16) for shape in range(3))
    assert len({square.sum().item(), ellipse.sum().item(), heart.sum().item()}) == 3
    assert (square == square.T.flip(0)).float().mean() > 0.95
    # Wide above, pointed below.
    rows = heart.any(1).nonzero().flatten()
    assert heart[rows[2]].sum() > 3 * heart[rows[-2]].sum()


def test_they_are_drawn_where_their_numbers_are() -> None:
    splits = vaezoo.load_data("sprites", examples=50, test=5)
    assert splits.train.device == torch.device("cpu")
    assert splits.train.to(torch.device("cpu")) is splits.train


@pytest.mark.parametrize(
    ("free", "at_once"), [(2 * 200 * 32 * 32, True), (2 * 200 * 32 * 32 - 2, False)]
)
def test_on_a_gpu_all_are_drawn_at_once_if_half_of_the_free_memory_holds_them(
    monkeypatch: pytest.MonkeyPatch, free: int, at_once: bool
) -> None:
    """200 pictures of 1,024 bytes, on tensors without values: no GPU is needed."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, free))
    with FakeTensorMode(allow_non_fake_inputs=True):
        there = SpritesSplit(torch.arange(200), 32, 32).to(torch.device("cuda"))
    assert isinstance(there, TensorSplit if at_once else SpritesSplit)
    assert there.device.type == "cuda"
    assert len(there) == 200


def test_a_run_may_use_any_part_of_the_grid() -> None:
    splits = vaezoo.load_data("sprites", indices="0:1000:10", test=20, image_size="16x24")
    assert splits.spec.shape == (1, 16, 24)
    assert (len(splits.train), len(splits.test)) == (80, 20)
    assert splits.factor_names == FACTORS
    numbers = []
    for split in (splits.train, splits.test):
        index = torch.arange(len(split))
        images, labels = split.get_batch(index)
        factors = split.factors(index)
        assert factors is not None
        assert labels is not None
        assert torch.equal(images, render(factors, 16, 24))
        assert torch.equal(labels, factors[:, 0])
        numbers += [tuple(row) for row in factors.tolist()]
    assert len(set(numbers)) == 100
    assert all(row[:3] == (0, 0, 0) for row in numbers)  # the first thousand: positions alone


def test_the_same_seed_is_the_same_data_and_another_is_not() -> None:
    prints = [
        vaezoo.load_data("sprites", examples=50, test=5, split_seed=seed).fingerprint
        for seed in (0, 0, 1)
    ]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"indices": "ten"}, "indices"),
        ({"indices": "5:5"}, "indices"),
        ({"examples": 10, "test": 10}, "test"),
        ({"image_size": "0"}, "image_size"),
    ],
)
def test_what_is_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises((DataError, OptionError), match=said):
        vaezoo.load_data("sprites", **options)
