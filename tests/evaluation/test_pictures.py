"""Pictures: every image at its place, at any number and size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from vaezoo.evaluation.pictures import save_grid, save_pairs
from vaezoo.evaluation.plots import COLORS, Series, save_bars, save_lines


def colors(path: Path) -> list[int]:
    """How many pixels there are of each level that a test has put there: 10, 20, 30, ..."""
    pixels = pil_to_tensor(Image.open(path))[0].flatten().bincount(minlength=256)
    return [int(pixels[level]) for level in range(10, 110, 10)]


def flat_images(count: int, size: tuple[int, int] = (64, 64)) -> torch.Tensor:
    levels = torch.arange(10, 10 * count + 10, 10) / 255
    return levels.view(-1, 1, 1, 1).expand(-1, 1, *size)


@pytest.mark.parametrize("count", [1, 3, 8, 10])
def test_a_grid_shows_each_image_whole(tmp_path: Path, count: int) -> None:
    path = tmp_path / "grid.png"
    assert save_grid(path, flat_images(count))
    shown = colors(path)
    area = shown[0]
    assert area > 0
    assert shown == [area] * count + [0] * (10 - count)


def test_pairs_stand_above_one_another(tmp_path: Path) -> None:
    path = tmp_path / "pairs.png"
    above, below = flat_images(3), flat_images(3) + 100 / 255
    assert save_pairs(path, above, below, columns=2)
    pixels = pil_to_tensor(Image.open(path))[0]
    for level in (10, 20, 30):
        rows, columns = (pixels == level).nonzero().T
        partner_rows, partner_columns = (pixels == level + 100).nonzero().T
        assert partner_columns.unique().tolist() == columns.unique().tolist()
        assert partner_rows.min() > rows.max()
    first, third = ((pixels == level).nonzero()[:, 0] for level in (110, 30))
    assert third.min() > first.max()  # the second pair of rows is below the first


@given(
    count=st.integers(1, 9),
    channels=st.integers(1, 4),
    height=st.integers(1, 130),
    width=st.integers(1, 130),
)
def test_any_images(tmp_path_factory: pytest.TempPathFactory, **shape: int) -> None:
    path = tmp_path_factory.mktemp("any") / "grid.png"
    x = torch.rand(shape["count"], shape["channels"], shape["height"], shape["width"])
    x.view(-1)[0] = float("nan")
    assert save_grid(path, x)
    Image.open(path).verify()


def test_vectors_have_no_picture(tmp_path: Path) -> None:
    assert not save_grid(tmp_path / "none.png", torch.rand(3, 7))
    assert list(tmp_path.iterdir()) == []


def test_charts_survive_what_training_brings(tmp_path: Path) -> None:
    path = tmp_path / "charts.png"
    nothing = Series("nothing", [(1, float("nan")), (2, float("inf"))])
    flat = Series("flat", [(0, 3.0), (1, 3.0)])
    one = Series("one", [(5, 7.0)], markers=True)
    many = Series("many", [(i, float(i % 7)) for i in range(20_000)])
    assert save_lines(path, {"a": [nothing], "b": [flat, one], "c": [many]})
    Image.open(path).verify()
    assert not save_lines(tmp_path / "no.png", {})
    assert not (tmp_path / "no.png").exists()


def test_bars_are_as_long_as_their_values(tmp_path: Path) -> None:
    path = tmp_path / "bars.png"
    name = "a/very/long/way/to/a/model/of/ones/own/my_$vae_$.py:MyVAE"
    bars = [(name, 300.0), ("_half", 150.0), ("none", 0.0)]
    assert save_bars(path, {"a": bars, "b": [("x", 0.0)]})
    pixels = pil_to_tensor(Image.open(path)).int()
    blue = (pixels[:3] - torch.tensor(COLORS[0]).view(3, 1, 1)).abs().amax(0) < 8
    lengths = blue.sum(1)
    inside = lengths > 0
    edges = (inside[1:] != inside[:-1]).nonzero()[:, 0].tolist()
    assert len(edges) == 4  # two bars and no more: a value of 0 has none
    first, half = (float(lengths[edges[i] + 1 : edges[i + 1]].median()) for i in (0, 2))
    assert first > 40
    assert half == pytest.approx(first / 2, abs=2)
    assert not save_bars(tmp_path / "no.png", {})
