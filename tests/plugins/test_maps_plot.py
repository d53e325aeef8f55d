"""Colours of categories, and scatter plots."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from vaezoo.evaluation.plots import COLORS
from vaezoo_maps.plot import name_of, palette, save_scatter


@pytest.mark.parametrize(("count", "shown"), [(3, 3), (10, 10), (15, 15), (40, 40)])
def test_each_value_has_a_colour_of_its_own(count: int, shown: int) -> None:
    colors = palette(torch.arange(count).repeat(2))
    assert len(set(colors.values())) == shown
    assert name_of(-1, ("a",)) == "unknown"
    assert (name_of(0, ("a",)), name_of(3, ("a",))) == ("a", "3")


def test_a_map_shows_every_colour(tmp_path: Path) -> None:
    path = tmp_path / "map.png"
    save_scatter(path, torch.rand(500, 2), torch.arange(500) % 3, ("a", "b", "c"), title="t")
    pixels = {color for _, color in Image.open(path).convert("RGB").getcolors(1 << 20) or ()}
    assert set(COLORS[:3]) <= pixels
