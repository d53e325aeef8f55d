"""Maps of latents, and the pictures of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageSequence

from vaezoo import DataSpec, Splits, TensorSplit
from vaezoo.errors import DataError, OptionError
from vaezoo.evaluation.embedding import embed_latents, embed_points, pca_plane
from vaezoo.evaluation.latents import LatentStats
from vaezoo.evaluation.pictures import draw_rows, save_rows
from vaezoo.evaluation.plots import COLORS, name_of, palette, save_scatter
from vaezoo.io import MissingExtraError


def cloud(n: int = 500) -> torch.Tensor:
    noise = torch.randn(n, 5, generator=torch.Generator().manual_seed(0))
    return noise * torch.tensor([0.1, 3.0, 0.2, 0.3, 2.0]) + 7


def test_the_plane_is_that_of_the_covariances_eigenvectors() -> None:
    points = cloud()
    plane, shares = pca_plane(points)
    values = torch.linalg.eigvalsh(torch.cov(points.double().T, correction=0)).flip(0)
    assert shares == pytest.approx((values[:2] / values.sum()).tolist(), rel=1e-9)
    spread = plane.double().square().mean(0)
    torch.testing.assert_close(spread, values[:2], rtol=1e-5, atol=0)
    assert abs(float(torch.corrcoef(plane.T)[0, 1])) < 1e-5


def test_a_sign_does_not_depend_on_the_decomposition() -> None:
    first, _ = pca_plane(cloud())
    # The largest loading is that of the second value, and positive.
    assert torch.corrcoef(torch.stack([first[:, 0], cloud()[:, 1]]))[0, 1] > 0.99


def test_one_value_is_a_line_and_two_points_no_map() -> None:
    plane, shares = pca_plane(torch.tensor([[1.0], [2.0], [4.0]]))
    assert plane[:, 1].tolist() == [0.0, 0.0, 0.0]
    assert shares == [pytest.approx(1.0), 0.0]
    with pytest.raises(DataError, match="give 3 or more"):
        embed_points(cloud(2))


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MissingExtraError, match=r"--method umap needs .*vaezoo\[maps\]") as caught:
        embed_points(cloud(), "umap")
    assert "\n" not in str(caught.value)


def splits(factors: tuple[str, ...] = ("size", "place")) -> Splits:
    class Known(TensorSplit):
        def factors(self, index: torch.Tensor) -> torch.Tensor:
            return torch.stack([index % 3, index % 7], 1)

    split = Known(torch.zeros(20, 1, 2, 2), torch.arange(20) % 2)
    spec = DataSpec(shape=(1, 2, 2), class_names=("even", "odd"))
    return Splits(spec, split, split, split, "so", factor_names=factors)


def latents() -> LatentStats:
    index = torch.tensor([1, 5, 8, 19])
    return LatentStats(torch.randn(4, 3), index, index % 2, None, torch.ones(3))


def test_points_are_coloured_by_what_their_examples_are() -> None:
    by_class = embed_latents(latents(), splits())
    assert (by_class.by, by_class.names) == ("class", ("even", "odd"))
    assert by_class.values is not None
    assert by_class.values.tolist() == [1, 1, 0, 1]
    by_place = embed_latents(latents(), splits(), by="place")
    assert by_place.values is not None
    assert by_place.values.tolist() == [1, 5, 1, 5]
    with pytest.raises(OptionError, match="class, size, place; did you mean 'place'"):
        embed_latents(latents(), splits(), by="palce")


@pytest.mark.parametrize(("count", "shown"), [(3, 3), (10, 10), (15, 15), (40, 40)])
def test_each_value_has_a_colour_of_its_own(count: int, shown: int) -> None:
    colors = palette(torch.arange(count).repeat(2))
    assert len(set(colors.values())) == shown
    assert name_of(-1, ("a",)) == "unknown"
    assert (name_of(0, ("a",)), name_of(3, ("a",))) == ("a", "3")


def test_a_map_shows_every_colour(tmp_path: Path) -> None:
    path = tmp_path / "map.png"
    save_scatter(path, cloud()[:, :2], torch.arange(500) % 3, ("a", "b", "c"), title="t")
    pixels = {color for _, color in Image.open(path).convert("RGB").getcolors(1 << 20) or ()}
    assert set(COLORS[:3]) <= pixels


def test_moving_pictures_go_there_and_back(tmp_path: Path) -> None:
    images = torch.linspace(0, 1, 5).view(5, 1, 1, 1).expand(5, 1, 8, 8)
    for ending in ("gif", "webp"):
        path = tmp_path / f"moves.{ending}"
        save_rows(path, [images, images.flip(0)], ["up", "down"])
        with Image.open(path) as moving:
            frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(moving)]
        assert len(frames) == 8
        assert frames[1].tobytes() == frames[7].tobytes()
        assert frames[0].tobytes() != frames[4].tobytes()


def test_a_still_picture_has_all_rows_and_images(tmp_path: Path) -> None:
    images = torch.tensor([10, 20, 30]).view(3, 1, 1, 1).expand(3, 1, 64, 64) / 255
    picture = draw_rows([images, images[:2]], ["a", ""])
    counts = {color[0]: n for n, color in picture.getcolors(1 << 20) or () if len(set(color)) == 1}
    assert [counts[level] for level in (10, 20, 30)] == [2 * 64**2, 2 * 64**2, 64**2]
